"""`distill`: a fresh student imitates the stolen model; parameters and presets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

import amb

if TYPE_CHECKING:
    from amb.vision import VisionModel

Target = Literal["soft", "hard", "feature-mse", "feature-cosine"]


class Distill(amb.Attack):
    """Train a student from random weights to answer as the model does, with AdamW on the attacker's images.

    The model is asked once for each image, and nothing but its outputs is used: neither its weights nor the owner's
    images. The student imitates its class probabilities (`soft`), its classes (`hard`) or its output embeddings
    (`feature-mse`, `feature-cosine`); where the embeddings differ in width, a linear projection is trained between
    them and thrown away. A student of embeddings then gets a linear head, fitted on the attacker's labels while the
    encoder is frozen, if the model has a classification head.
    """

    name: ClassVar[str] = "distill"
    source: ClassVar[str] = (
        "Hinton et al. 2015, section 2; Tramèr et al. 2016, section 6 (hard); Romero et al. 2015 (features)"
    )
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "distill-soft": {"target": "soft"},
        "distill-hard": {"target": "hard", "alpha": 1.0},
        "distill-feature-mse": {"target": "feature-mse"},
        "distill-feature-cosine": {"target": "feature-cosine"},
        "distill-convnet": {"target": "soft", "student": "resnet10t", "lr": 1e-3, "epochs": 8, "batch": 64},
    }

    target: Target = "soft"
    """What of the model is imitated: class probabilities, classes, or output embeddings by squared error or cosine."""
    student: str = "same"
    """`same` for the model's own architecture, or a timm model such as `resnet10t`, built at the model's image size."""
    temperature: float = Field(3.0, gt=0)
    """What the logits of both are divided by, for `soft`."""
    alpha: float = Field(0.9, ge=0, le=1)
    """Weight of the imitation, for `soft` and `hard`; the rest is cross-entropy with the attacker's own labels."""
    lr: float = Field(5e-4, gt=0)
    """Highest learning rate; it rises over a tenth of the steps and then falls to 0 as a cosine."""
    weight_decay: float = Field(0.01, ge=0)
    """AdamW's weight decay."""
    epochs: int = Field(30, ge=1)
    """Passes over the images."""
    batch: int = Field(32, ge=2)
    """Images per step; a short last batch of an epoch is left out."""
    n_images: int = Field(4096, ge=2)
    """How many of the attacker's images to show to the model and train on."""

    @property
    def by_class(self) -> bool:
        """Whether the student imitates what the model says of classes, not its embeddings."""
        return self.target in ("soft", "hard")

    def skip(self, model: VisionModel) -> str | None:
        if self.by_class and "classification" not in model.heads:
            return f"{model.ref} has no classification head whose answers could be imitated"
        return None

    def apply(self, model: VisionModel, ctx: amb.Context) -> VisionModel:
        from amb_attacks.distilling import distill

        return distill(self, model, ctx)
