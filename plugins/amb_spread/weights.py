"""`spread-weights`: parameters and verbs; the torch work is in `weights_torch`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

import amb

if TYPE_CHECKING:
    import torch

    from amb import SuspectView, VisionModel


class SpreadWeights(amb.Method):
    """Move each of the encoder's weights up or down by a share of the spread of its matrix; no training.

    Which way is a sign drawn from the secret, turned by the bit of a random message that the weight belongs to. A suspect
    is read by correlating its difference from the unmarked model with those signs, bit by bit. For any model made without
    the secret each bit is a fair coin, whatever else is true of it. T, the whole correlation over the length of the
    difference, then has mean 0 and variance 1 and is all but normal. A weight that is exactly zero in the suspect was pruned and says nothing; where nothing is left to read, or the
    suspect is the unmarked model itself, every bit counts as wrong.

    Before it is read, a suspect whose weights were rewritten is put back into the form of the unmarked model: norms and
    scales folded, the residual stream turned back, neurons and heads matched, those that were added merged or dropped, and
    the bases inside heads fitted. That sees the suspect and the unmarked model, never the key or the marked model, which
    would leak the key and break the null.

    The reference is the unmarked model. Whoever has it as well can subtract it, and so remove the mark.
    """

    name: ClassVar[str] = "spread-weights"
    source: ClassVar[str] = (
        "Cox et al. 1997, spread spectrum watermarking; in weights: TATTOOED (arXiv 2202.06091), GaussMark (arXiv 2501.13941)"
    )
    access: ClassVar[amb.Access] = "weights"
    null: ClassVar[amb.Null] = "exact"
    claims: ClassVar[amb.ClaimKind] = "marked release"

    n_messages: int = Field(128, ge=1)
    """Messages; each is a trial."""
    n_bits: int = Field(32, ge=1, le=4096)
    """Bits of a message."""
    strength: float = Field(0.05, gt=0, le=1)
    """How far each weight moves, as a share of the standard deviation of its matrix."""

    align: bool = True
    """Undo rewritings of a suspect's weights before it is read, wherever that brings them much nearer to the unmarked ones."""

    @property
    def default_tau(self) -> int:
        """About a sixth of the bits: 5 of 32, as ActiveMark has it."""
        return 5 * self.n_bits // 32

    def skip(self, facts: amb.ModelFacts, key: amb.Key | None = None) -> str | None:
        """As a suspect, a network of the same form as the owner's: weights are compared one by one."""
        if key is None or (facts.n_blocks, facts.dim) == (key.facts["n_blocks"], key.facts["dim"]):
            return None
        return f"{facts.ref} is of another form than the protected model, so its weights cannot be compared"

    def redraw(self, key: amb.Key, generator: torch.Generator) -> amb.Key:
        return replace(key, tensors={**key.tensors, "secret": amb.draw_secret(generator)})

    forgeries: ClassVar[Mapping[str, str]] = {
        "secret": "draw `budget` secrets and keep the one that reads best: carriers and messages follow from it, so nothing "
        "else can be chosen, and the best p is about 1 / budget",
    }

    def forge(self, model: VisionModel, what: str, budget: int, ctx: amb.Context) -> amb.Key:
        from amb_spread.weights_torch import forge

        amb.require_forgery(self, what)
        return forge(self, model, budget, ctx)

    def audit_key(self, key: amb.Key, unmarked: VisionModel | None = None) -> amb.KeyAudit:
        return amb.audit_secret(self, key, unmarked, "carriers and messages")

    def embed(self, owner: VisionModel, ctx: amb.Context) -> amb.Embedding:
        from amb_spread.weights_torch import embed

        return embed(self, owner, ctx)

    def extract(self, suspect: SuspectView, key: amb.Key, ctx: amb.Context) -> amb.Evidence:
        from amb_spread.weights_torch import extract

        return extract(self, suspect.model, key, ctx)
