"""The gradient ascent behind `adversarial`: images that the model gets wrong, near those it was given."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

import amb
from amb import Task


@dataclass(frozen=True)
class Ascent:
    """Projected gradient ascent within an L-infinity ball (Madry et al. 2018, eq. 2.1)."""

    epsilon: float
    steps: int
    step_size: float
    task: Task
    start: torch.Generator
    """What the random starts are drawn from."""

    def __call__(self, model: amb.VisionModel, images: Tensor, target: Tensor) -> Tensor:
        """Images in [0, 1], within epsilon of those given, on which the model's cross-entropy is higher.

        The model stays in training mode, where what a deployed model does to its images is out of the way.
        """
        clean = images.to(model.device)
        lowest, highest = (clean - self.epsilon).clamp(min=0), (clean + self.epsilon).clamp(max=1)
        noise = torch.rand(images.shape, generator=self.start).to(clean)
        moved = clean + self.epsilon * (2 * noise - 1)
        for _ in range(self.steps):
            moved = moved.clamp(lowest, highest).requires_grad_()
            loss = F.cross_entropy(model.logits(moved, self.task), target)
            (slope,) = torch.autograd.grad(loss, moved)
            moved = moved.detach() + self.step_size * slope.sign()
        return moved.clamp(lowest, highest)
