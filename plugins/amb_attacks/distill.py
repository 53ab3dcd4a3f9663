"""`distill`: a fresh student imitates the stolen model; parameters and presets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, ValidationInfo, field_validator

import amb

if TYPE_CHECKING:
    from amb import VisionModel

Target = Literal["soft", "hard", "feature-mse", "feature-cosine", "token-mse", "token-cosine", "contrastive"]


class Distill(amb.Attack):
    """Train a student from random weights to answer as the model does, with AdamW on the attacker's images.

    Nothing but the model's outputs is used: neither its weights nor the owner's images. The student imitates its class
    probabilities (`soft`), its classes (`hard`), its output embeddings (`feature-mse`, `feature-cosine`,
    `contrastive`) or all its output tokens but the registers (`token-mse`, `token-cosine`). A service hands out no
    tokens: for these the thief has the whole model in hand. `contrastive` is Cont-Steal: the student's embedding of one
    view of an image has to be nearer to the model's embedding of another view than to the model's and the student's
    own embeddings of the batch's other images; the views differ where `augment` is on, as in the preset.

    Where the widths differ, a linear projection is trained between them and thrown away, unless `keep_projection`: then the
    thief serves embeddings of the model's own form, as a replacement that its users do not notice. Where the grids of tokens
    differ, the student's is interpolated. A student of embeddings or tokens then gets a linear head, fitted on the
    attacker's labels while the encoder is frozen, if the model has a classification head and the images have labels.
    The model is asked once for each image, or at every step for augmented images and for tokens, which are too many
    to keep. The number of questions is reported as `queries`.
    """

    name: ClassVar[str] = "distill"
    thief: ClassVar[amb.Thief] = "distills it"
    source: ClassVar[str] = (
        "Hinton et al. 2015, section 2; Tramèr et al. 2016, section 6 (hard); Romero et al. 2015 (features); "
        "Jiao et al. 2020, equation 8 (tokens); Sha et al. 2023 and its code (contrastive); Orekondy et al. 2019 (surrogate)"
    )
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "distill-soft": {"target": "soft"},
        "distill-hard": {"target": "hard", "alpha": 1.0},
        "distill-feature-mse": {"target": "feature-mse"},
        "distill-feature-cosine": {"target": "feature-cosine"},
        "distill-tokens": {"target": "token-mse"},
        "distill-replacement": {
            "target": "feature-mse",
            "student": "resnet10t",
            "lr": 2e-3,
            "epochs": 6,
            "keep_projection": True,
        },
        "distill-contrastive": {"target": "contrastive", "augment": True, "lr": 3e-4},
        "distill-convnet": {"target": "soft", "student": "resnet10t", "lr": 2e-3, "epochs": 6},
        "distill-surrogate": {
            "target": "soft",
            "alpha": 1.0,
            "images": "surrogate",
            "student": "resnet10t",
            "lr": 2e-3,
            "epochs": 8,
        },
    }

    target: Target = "soft"
    """What of the model is imitated: class probabilities, classes, embeddings, or tokens, and by which measure."""
    student: str = "same"
    """A timm model such as `resnet10t`, built at the model's image size, or `same` for its architecture as published."""
    keep_projection: bool = False
    """Serve embeddings through the projection, in the model's own form; it is thrown away otherwise."""
    temperature: float = Field(3.0, gt=0)
    """What the logits of both are divided by, for `soft`."""
    contrast_temperature: float = Field(0.5, gt=0)
    """What the cosine similarities are divided by, for `contrastive`."""
    alpha: float = Field(0.9, ge=0, le=1)
    """Weight of the imitation, for `soft` and `hard`; the rest is cross-entropy with the attacker's own labels."""
    images: Literal["own", "surrogate"] = "own"
    """The attacker's own images, or images of no domain made of them (mixed, shuffled, recoloured), without labels."""
    augment: bool = False
    """Show a random crop with other brightness and contrast at every step, to model and student; wants more epochs."""
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

    @field_validator("images")
    @classmethod
    def _refuse_unlabelled(cls, images: str, earlier: ValidationInfo) -> str:
        by_class = earlier.data.get("target") in ("soft", "hard")
        if images == "surrogate" and by_class and earlier.data.get("alpha") != 1:
            raise ValueError("can be surrogate only with alpha=1, for such images have no labels")
        return images

    @property
    def by_class(self) -> bool:
        """Whether the student imitates what the model says of classes, not its embeddings or tokens."""
        return self.target in ("soft", "hard")

    @property
    def by_token(self) -> bool:
        """Whether the student imitates all output tokens."""
        return self.target in ("token-mse", "token-cosine")

    def skip(self, model: VisionModel) -> str | None:
        if self.by_class and "classification" not in model.heads:
            return f"{model.ref} has no classification head whose answers could be imitated"
        return None

    def skeleton(self, model: VisionModel) -> VisionModel | None:
        from amb_attacks.distill_torch import form_of

        return None if self.student == "same" else form_of(self, model)

    def work(self, method: amb.Method, facts: amb.ModelFacts) -> amb.Work:
        """The student, reckoned to be as large as the model, in every epoch; the model once, or as often where views change."""
        again = self.augment or self.by_token
        return amb.Work(read=(self.epochs if again else 1) * self.n_images, trained=self.epochs * self.n_images)

    def apply(self, model: VisionModel, ctx: amb.Context) -> VisionModel:
        from amb_attacks.distill_torch import distill

        return distill(self, model, ctx)


class ProjectEmbedding(amb.Edit):
    """Put a linear map behind the embedding, whose weights are kept with the others."""

    name: ClassVar[str] = "project-embedding"

    n_in: int = Field(ge=1, le=65536)
    """Width of the backbone's embedding."""
    n_out: int = Field(ge=1, le=65536)
    """Features that are served."""

    def apply(self, model: VisionModel) -> None:
        from torch import nn

        if model.projection is not None:
            raise amb.CheckpointError(f"{model.ref} has a projection behind its embedding already.")
        model.projection = nn.Linear(self.n_in, self.n_out).to(model.device)
