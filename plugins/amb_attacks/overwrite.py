"""`overwrite`: the thief embeds marks of his own over the owner's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

import amb

if TYPE_CHECKING:
    from amb import VisionModel


class Overwrite(amb.Attack):
    """Embed marks of the thief's own in the stolen model, each over the one before, with the attacker's images alone.

    The method is the one that marked the model, or another. The notes say at which rate the thief's last key reads on
    the result (`thief_rate`) and on the model as it was stolen (`thief_rate_before`). Where both keys read on the result,
    the older copy can tell who was first, unless the thief's key reads on it as well. A fingerprint writes nothing, so
    the model stays as it is (`changed` is false); the thief has a key all the same.
    """

    name: ClassVar[str] = "overwrite"
    thief: ClassVar[amb.Thief] = "marks it again"
    source: ClassVar[str] = "Uchida et al. 2017 (overwriting); Adi et al. 2018, USENIX Security (ownership piracy)"
    strength_parameter: ClassVar[str | None] = "times"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"overwrite-twice": {"times": 2}}

    method: str = "same"
    """`same` for the method that marked the model, or the name or preset of another one."""
    times: int = Field(1, ge=0, le=16)
    """How many marks are embedded, one over the other."""

    @property
    def knows(self) -> amb.Knows:
        return "method"

    def skip(self, model: VisionModel) -> str | None:
        from amb_attacks.claimant import misfit

        other = _find_method(self.method)
        return misfit(other, model) if other else None

    def work(self, method: amb.Method, facts: amb.ModelFacts) -> amb.Work | None:
        """That of the embeddings."""
        once = (_find_method(self.method) or method).work(facts)
        return once.times(self.times) if once else None

    def apply(self, model: VisionModel, ctx: amb.Context) -> VisionModel:
        from amb_attacks.claimant import claimant, method_of, rate, require_fit

        method = _find_method(self.method) or method_of(ctx)
        require_fit(method, model)
        marked, before, key = model, model, None
        for turn in range(self.times):  # each embedding shows its own progress
            embedding = method.embed(marked, claimant(ctx, f"overwrite {turn}"))
            before, marked, key = marked, embedding.model, embedding.key
        if key is not None:
            his = replace(ctx, base=lambda: before)  # what is unmarked to him is what he put his mark on
            rates = {"thief_rate": rate(method, marked, key, his), "thief_rate_before": rate(method, model, key, his)}
            ctx.note(**rates, changed=marked.digest() != model.digest())
        return marked.copy(f"{model.ref}+{self.canonical()}")


def _find_method(name: str) -> amb.Method | None:
    """Another registered method; None for the one that marked the model."""
    return None if name == "same" else amb.get_method(name)
