"""How long and how fast to train, and which layers: a plain value, light to import."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, Literal

LrSchedule = Literal["constant", "cosine", "linear"]
"""Learning rate over the steps: constant, cosine to 0 after a tenth of warm-up, or linear to 0."""
Task = Literal["classification", "segmentation"]
"""What a head is for: the class of an image, or of each pixel."""
Head = Literal["new", "keep"]
"""Whether to start from an untrained head, or from the model's own."""

_WARM_UP: Final = 0.1  # share of the steps, for the cosine schedule


@dataclass(frozen=True)
class TrainingConfig:
    """How long and how fast to train, and which layers."""

    lr_schedule: LrSchedule = "constant"
    lr: float = 1e-5
    """Learning rate of the encoder."""
    head_lr: float = 3e-3
    """Learning rate of the new head."""
    weight_decay: float = 0.01
    """AdamW's weight decay."""
    epochs: int = 5
    batch: int = 64
    n_images: int = 2048
    """Train on the first so many images of the split, or on all where it has fewer."""
    layers: Literal["all", "head"] = "all"

    def factor(self, step: int, n_steps: int) -> float:
        """Share of the learning rate at a step."""
        if self.lr_schedule == "constant":
            return 1.0
        if self.lr_schedule == "linear":
            return 1 - step / max(1, n_steps)
        warm_up = max(1, round(_WARM_UP * n_steps))
        if step < warm_up:
            return (step + 1) / warm_up
        return 0.5 * (1 + math.cos(math.pi * (step - warm_up) / max(1, n_steps - warm_up)))
