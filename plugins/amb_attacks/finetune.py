"""`finetune`: train the stolen model for a task of the thief's; parameters and presets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

import amb
from amb_attacks.training_parameters import TrainingParameters

if TYPE_CHECKING:
    from amb import TrainingConfig, VisionModel


class FineTune(TrainingParameters):
    """Train the model with a task head on the attacker's images, with AdamW.

    The head is concat(CLS, mean patch) -> norm -> dropout -> linear for classification, and one linear layer on
    each patch token for segmentation: a new one, or the model's own where that is of the attacker's classes. Its
    utility shows as `head_accuracy` or `head_miou`. The four classic forms are presets: the last layer or all of
    them (ll, al), fine-tuned as they are or after the last was initialised anew (ft, rt).
    """

    name: ClassVar[str] = "finetune"
    thief: ClassVar[amb.Thief] = "fine-tunes it"
    source: ClassVar[str] = (
        "ActiveMark, section 4.2: all layers, AdamW, three schedules; 5 epochs as in the authors' code. "
        "FTLL, FTAL, RTLL, RTAL: Adi et al. 2018, section 5.4; after Uchida et al. 2017, section 4.3"
    )
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "finetune-constant": {"schedule": "constant"},
        "finetune-cosine": {"schedule": "cosine"},
        "finetune-linear": {"schedule": "linear"},
        "finetune-segmentation": {"task": "segmentation"},
        "ftll": {"head": "keep", "layers": "head", "lr": 3e-3},
        "ftal": {"head": "keep", "layers": "all"},
        "rtll": {"head": "new", "layers": "head"},
        "rtal": {"head": "new", "layers": "all"},
        "linear-probe": {"layers": "head", "schedule": "cosine", "weight_decay": 0.0, "epochs": 20},
    }
    strength_parameter: ClassVar[str | None] = "epochs"

    leading: ClassVar[tuple[str, ...]] = ("task", "schedule", "layers", "head")

    task: Literal["classification", "segmentation"] = "classification"
    """What the model is trained for."""
    schedule: amb.LrSchedule = "constant"
    """Learning rate over the steps: constant, cosine to 0 after a tenth of warm-up, or linear to 0."""
    layers: Literal["all", "head"] = "all"
    """Train the whole model, or the head alone."""
    head: Literal["new", "keep"] = "new"
    """Start from a new head, or from the model's own; other heads are dropped."""
    lr: float = Field(1e-5, ge=0)
    """Learning rate of the encoder, and of a head that was kept."""
    head_lr: float = Field(3e-3, gt=0)
    """Learning rate of a new head."""

    def skip(self, model: VisionModel) -> str | None:
        if self.head == "keep" and self.task not in model.heads:
            return f"{model.ref} has no {self.task} head that could be kept"
        return None

    def work(self, method: amb.Method, facts: amb.ModelFacts) -> amb.Work:
        """Every image in every epoch; a head alone needs no gradient of the model."""
        n = float(self.epochs * self.n_images)
        return amb.Work(trained=n) if self.layers == "all" else amb.Work(read=n)

    def apply(self, model: VisionModel, ctx: amb.Context) -> VisionModel:
        from amb import tune

        ref = f"{model.ref}+{self.canonical()}"
        return tune(model, ctx.split("attacker"), self.task, self.training_config(), ctx, ref, head=self.head)

    def training_config(self) -> TrainingConfig:
        """How long and how fast to train, and which layers."""
        return replace(super().training_config(), layers=self.layers)
