"""`prune`: set single weights to zero, the smallest or random ones, without retraining."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

import amb

if TYPE_CHECKING:
    from amb import VisionModel


class Prune(amb.Attack):
    """Zero a share of the weights, those with the smallest magnitude (unstructured L1), without retraining.

    Takes every matrix of the encoder, query, key and value of any library's attention among them; task heads, biases,
    norms, position embeddings and learnt tokens stay. Random weights instead of the smallest serve as a control.
    Built on torch.nn.utils.prune.
    """

    name: ClassVar[str] = "prune"
    thief: ClassVar[amb.Thief] = "prunes it"
    source: ClassVar[str] = "Han et al. 2015, section 3; ActiveMark, section 4.2"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        f"{name}{percent}": {"amount": percent / 100, **more}
        for name, more in {
            "prune": {},
            "prune-layer": {"scope": "layer"},
            "prune-random": {"criterion": "random"},
        }.items()
        for percent in (20, 40, 60, 80)
    }
    strength_parameter: ClassVar[str | None] = "amount"

    amount: float = Field(ge=0, lt=1)
    """Share of the weights set to zero."""
    scope: Literal["global", "layer"] = "global"
    """Take the share from the whole model, or from each matrix."""
    criterion: Literal["magnitude", "random"] = "magnitude"
    """Zero the smallest weights, or random ones."""

    def apply(self, model: VisionModel, ctx: amb.Context) -> VisionModel:
        from torch.nn.utils import prune

        pruned = model.copy(f"{model.ref}+{self.canonical()}")
        if self.amount == 0:  # torch keeps a mask all the same; the model is the same without
            return pruned
        weights = [(matrix.module, matrix.parameter) for matrix in pruned.matrices()]
        how = prune.RandomUnstructured if self.criterion == "random" else prune.L1Unstructured
        with ctx.seeded("mask"):
            for group in [weights] if self.scope == "global" else [[weight] for weight in weights]:
                prune.global_unstructured(group, how, amount=self.amount)
        for module, name in weights:
            prune.remove(module, name)  # type: ignore[no-untyped-call]  # bake the mask into the weights
        return pruned
