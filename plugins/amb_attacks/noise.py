"""`noise`: Gaussian noise on the encoder's matrices."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

import amb

if TYPE_CHECKING:
    from amb import VisionModel


class WeightNoise(amb.Attack):
    """Add Gaussian noise to every matrix of the encoder, as large as a share of the matrix's own spread.

    Takes query, key and value of any library's attention too; task heads, biases, norms, position embeddings and
    learnt tokens stay.
    """

    name: ClassVar[str] = "noise"
    thief: ClassVar[amb.Thief] = "quantizes it or adds noise"
    source: ClassVar[str] = "this project: the plainest change of weights, relative to each matrix"
    strength_parameter: ClassVar[str | None] = "sigma"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        f"noise{percent:02}": {"sigma": percent / 100} for percent in (5, 10, 20)
    }

    sigma: float = Field(0.1, ge=0)
    """Standard deviation of the noise, as a share of the matrix's own standard deviation."""
    draw: int = Field(0, ge=0)
    """Which draw of the noise: another number is another model."""

    def apply(self, model: VisionModel, ctx: amb.Context) -> VisionModel:
        import torch

        noisy = model.copy(f"{model.ref}+{self.canonical()}")
        generator = ctx.generator(f"weight noise {self.draw}")
        for weight in (matrix.weight for matrix in noisy.matrices()):
            drawn = torch.randn(weight.shape, generator=generator).to(weight)  # drawn on the CPU: the same on a GPU
            weight.add_(drawn * (self.sigma * weight.std()))
        return noisy
