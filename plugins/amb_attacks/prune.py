"""`prune`: set the smallest weights to zero, without retraining."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

import amb

if TYPE_CHECKING:
    from torch import nn

    from amb.vision import VisionModel


class Prune(amb.Attack):
    """Zero the share of weights with the smallest magnitude (unstructured L1), without retraining.

    Takes the matrices of all linear and convolutional layers of the encoder; task heads, biases, norms and
    position embeddings stay. Built on torch.nn.utils.prune.
    """

    name: ClassVar[str] = "prune"
    source: ClassVar[str] = "Han et al. 2016; ActiveMark, section 4.2"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        f"prune{percent}": {"amount": percent / 100} for percent in (20, 40, 60, 80)
    }

    amount: float = Field(ge=0, lt=1)
    """Share of the weights set to zero."""
    scope: Literal["global", "layer"] = "global"
    """Rank weights over the whole model, or within each layer."""

    def apply(self, model: VisionModel, ctx: amb.Context) -> VisionModel:
        from torch.nn.utils import prune

        pruned = model.copy(f"{model.ref}+{self.canonical()}")
        weights = [(layer, "weight") for layer in _layers(pruned)]
        if self.amount == 0:  # torch keeps a mask all the same; the model is the same without
            return pruned
        if self.scope == "global":
            prune.global_unstructured(weights, prune.L1Unstructured, amount=self.amount)
        else:
            for layer, name in weights:
                prune.l1_unstructured(layer, name, amount=self.amount)
        for layer, name in weights:
            prune.remove(layer, name)  # bake the mask into the weights
        return pruned


def _layers(model: VisionModel) -> list[nn.Module]:
    from torch import nn

    kinds = (nn.Linear, nn.Conv1d, nn.Conv2d)
    return [module for module in model.backbone.modules() if isinstance(module, kinds)]
