"""`forge`: a dishonest claimant makes up a key after the fact, so that an innocent model verifies."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

import amb

if TYPE_CHECKING:
    from amb import VisionModel


class Forge(amb.Forgery):
    """Make up a key that reads on an innocent model, which stays as it is: an attack on the verification.

    The claimant keeps the honest owner's key and chooses new messages or labels (`messages`) or new inputs (`triggers`)
    for the model at hand, or makes the secret networks himself from the method and his own images (`decoder`). Where a
    key follows from its secret, all that he can do is to draw the secret again (`secret`); the notes then give the best p
    of his tries (`best_p`) beside 1 / budget. What each of these does, and what `budget` counts, is for the method to
    say; a method that does not offer one is skipped. A forged key that verifies shows what a verification is worth if
    keys are not registered beforehand.
    """

    name: ClassVar[str] = "forge"
    source: ClassVar[str] = (
        "Fan, Ng and Chan 2019, NeurIPS (ambiguity attacks); Liu et al. 2024, arXiv 2304.06607 (false claims)"
    )
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "forge-messages": {"what": "messages", "budget": 64},
        "forge-triggers": {"what": "triggers", "budget": 100},
        "forge-decoder": {"what": "decoder", "budget": 400},
        "forge-secret": {"what": "secret", "budget": 10_000},
    }

    what: Literal["messages", "triggers", "decoder", "secret"]
    """What of the key is made up: its messages or labels, its inputs, its secret networks, or the secret behind all of it."""
    budget: int = Field(100, ge=1)
    """Tries, iterations or training steps at most, as the method counts them."""

    @property
    def knows(self) -> amb.Knows:
        """The honest key, of which the claimant keeps the rest; his own networks need the method alone."""
        return "method" if self.what == "decoder" else "key"

    def skip_method(self, method: amb.Method) -> str | None:
        if self.what in method.forgeries:
            return None
        offered = ", ".join(method.forgeries) or "nothing"
        return f"{method.name} does not say how its {self.what} could be forged (it offers: {offered})"

    def work(self, method: amb.Method, facts: amb.ModelFacts) -> None:
        """Not known: only the method knows what its budget counts."""

    def forge(self, model: VisionModel, ctx: amb.Context) -> amb.Key:
        from amb_attacks.claimant import claimant, method_of, require_fit

        method = method_of(ctx)
        require_fit(method, model, ctx.key)
        ctx.note(forged=self.what, budget=self.budget)
        return method.forge(model, self.what, self.budget, claimant(ctx, f"forge {self.what}"))
