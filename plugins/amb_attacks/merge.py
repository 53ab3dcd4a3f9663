"""`merge`: average the stolen model's weights with another model's; parameters and presets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

import amb

if TYPE_CHECKING:
    from amb import VisionModel


class Merge(amb.Attack):
    """Merge the encoder with another one of the same architecture, weight by weight; the task heads stay.

    `linear` is (1 - weight) * stolen + weight * other. `slerp` turns each tensor from the stolen one's direction
    towards the other's by the share `weight` of the angle between them; nearly parallel tensors are averaged.
    `task-arithmetic` is stolen + weight * (other - base): what another fine-tune has learnt, added to the stolen model.
    The other may be the public model from before the mark, that model fine-tuned by the attacker, or any reference.
    Running statistics of batch norms are averaged in each case.
    """

    name: ClassVar[str] = "merge"
    thief: ClassVar[amb.Thief] = "merges it with another"
    source: ClassVar[str] = (
        "Wortsman et al. 2022, model soups and WiSE-FT (linear); Shoemake 1985 (slerp); "
        "Ilharco et al. 2023 (task arithmetic)"
    )
    strength_parameter: ClassVar[str | None] = "weight"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "merge-base30": {"weight": 0.3},
        "merge-base50": {"weight": 0.5},
        "merge-base-slerp50": {"how": "slerp"},
        "merge-finetuned50": {"other": "finetuned-base"},
        "merge-task50": {"how": "task-arithmetic", "other": "finetuned-base"},
    }

    how: Literal["linear", "slerp", "task-arithmetic"] = "linear"
    """How two weights become one."""
    other: str = "base"
    """`base` for the public model, `finetuned-base` for its fine-tune by the attacker, or a reference like `tiny/owner`."""
    weight: float = Field(0.5, ge=0, le=1)
    """Share of the other model, or of its task vector; 0 leaves the stolen model."""
    lr: float = Field(1e-4, gt=0)
    """For `finetuned-base`: highest learning rate of the encoder, with warm-up and cosine."""
    epochs: int = Field(5, ge=1)
    """For `finetuned-base`: passes over the attacker's images, for classification."""
    n_images: int = Field(2048, ge=1)
    """For `finetuned-base`: how many of the attacker's images to train on."""

    @model_validator(mode="after")
    def _require_task_vector(self) -> Self:
        if self.how == "task-arithmetic" and self.other == "base":
            raise ValueError("merges nothing: the task vector of base against itself is 0; set other=finetuned-base")
        return self

    def apply(self, model: VisionModel, ctx: amb.Context) -> VisionModel:
        from amb_attacks.merge_torch import merge

        return merge(self, model, ctx)
