"""`finetune`: train the stolen model for a task of the thief's; parameters and presets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

import amb

if TYPE_CHECKING:
    from amb.vision import VisionModel


class FineTune(amb.Attack):
    """Train the model with a new task head on the attacker's images, with AdamW.

    The head is concat(CLS, mean patch) -> norm -> dropout -> linear for classification, and one linear layer on
    each patch token for segmentation. Its utility shows as `head_accuracy` or `head_miou`.
    """

    name: ClassVar[str] = "finetune"
    source: ClassVar[str] = (
        "ActiveMark, section 4.2: all layers, AdamW, three schedules; 5 epochs as in the authors' code"
    )
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "finetune-constant": {"schedule": "constant"},
        "finetune-cosine": {"schedule": "cosine"},
        "finetune-linear": {"schedule": "linear"},
        "finetune-segmentation": {"task": "segmentation"},
    }

    task: Literal["classification", "segmentation"] = "classification"
    """What the model is trained for."""
    schedule: Literal["constant", "cosine", "linear"] = "constant"
    """Learning rate over the steps: constant, cosine to 0 after a tenth of warm-up, or linear to 0."""
    layers: Literal["all", "head"] = "all"
    """Train the whole model, or the new head alone."""
    lr: float = Field(1e-5, ge=0)
    """Learning rate of the encoder."""
    head_lr: float = Field(3e-3, gt=0)
    """Learning rate of the new head."""
    weight_decay: float = Field(0.01, ge=0)
    """AdamW's weight decay."""
    epochs: int = Field(5, ge=1)
    """Passes over the images."""
    batch: int = Field(64, ge=1)
    """Images per step."""
    n_images: int = Field(2048, ge=1)
    """How many of the attacker's images to train on."""

    def apply(self, model: VisionModel, ctx: amb.Context) -> VisionModel:
        from amb.tuning import Schedule, tune

        schedule = Schedule(
            self.schedule,
            lr=self.lr,
            head_lr=self.head_lr,
            weight_decay=self.weight_decay,
            epochs=self.epochs,
            batch=self.batch,
            n_images=self.n_images,
            layers=self.layers,
        )
        return tune(model, ctx.split("attacker"), self.task, schedule, ctx, f"{model.ref}+{self.canonical()}")
