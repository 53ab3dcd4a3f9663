"""`soup`: many fine-tunes of the stolen model, averaged; parameters and presets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

import amb
from amb_attacks.training_parameters import TrainingParameters

if TYPE_CHECKING:
    from amb import VisionModel


class Soup(TrainingParameters):
    """Fine-tune the stolen model several times for classification, each in another order of images, and average the weights.

    All start from the same new head, trained for as long. What one training run adds at random the average loses; what all
    of them have in common it keeps, and the mark is in all of them. Its utility shows as `head_accuracy`.
    """

    name: ClassVar[str] = "soup"
    thief: ClassVar[amb.Thief] = "fine-tunes it"
    source: ClassVar[str] = "Wortsman et al. 2022, model soups, section 3 (uniform soup)"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"soup-fast": {"lr": 1e-3}}
    leading: ClassVar[tuple[str, ...]] = ("n",)

    n: int = Field(4, ge=2, le=64)
    """Fine-tunes that are averaged."""
    lr: float = Field(1e-4, ge=0)
    """Learning rate of the encoder."""

    def work(self, method: amb.Method, facts: amb.ModelFacts) -> amb.Work:
        """Every image in every epoch of every fine-tune."""
        return amb.Work(trained=float(self.n * self.epochs * self.n_images))

    def apply(self, model: VisionModel, ctx: amb.Context) -> VisionModel:
        from amb_attacks.soup_torch import average_fine_tunes

        return average_fine_tunes(self, model, ctx)
