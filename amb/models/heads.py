"""Task heads on an encoder's output tokens: one classifier and one segmenter, of one shape for every backbone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from amb.errors import shortened


class ClassificationHead(nn.Module):
    """concat(CLS, mean of the patch tokens) -> normalisation -> dropout -> linear (ActiveMark, section 5.1)."""

    def __init__(self, dim: int, n_classes: int, dropout: float = 0.1) -> None:
        super().__init__()
        self.n_classes = n_classes
        self.norm = nn.LayerNorm(2 * dim)
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(2 * dim, n_classes)

    def facts(self) -> dict[str, Any]:
        """JSON from which `build_heads` makes it again."""
        return {"n_classes": self.n_classes}

    def forward(self, tokens: Tensor, n_prefix: int, image_size: int) -> Tensor:
        """Class logits, (n, n_classes), of output tokens (n, n_prefix + patches, dim)."""
        patches = tokens[:, n_prefix:].mean(dim=1)
        summary = tokens[:, 0] if n_prefix else patches  # a convolutional network has no CLS token
        return cast(Tensor, self.linear(self.dropout(self.norm(torch.cat([summary, patches], dim=1)))))


class SegmentationHead(nn.Module):
    """normalisation -> linear from each patch token to the class logits of its `side` x `side` pixels."""

    def __init__(self, dim: int, n_classes: int, side: int = 4) -> None:
        super().__init__()
        self.n_classes = n_classes
        self.side = side
        self.norm = nn.LayerNorm(dim)
        self.linear = nn.Linear(dim, n_classes * side * side)

    def facts(self) -> dict[str, Any]:
        """JSON from which `build_heads` makes it again."""
        return {"n_classes": self.n_classes, "side": self.side}

    def forward(self, tokens: Tensor, n_prefix: int, image_size: int) -> Tensor:
        """Class logits of every pixel, (n, n_classes, image_size, image_size)."""
        patches = self.linear(self.norm(tokens[:, n_prefix:]))
        width = round(patches.shape[1] ** 0.5)  # patches form a square
        grid = patches.transpose(1, 2).unflatten(2, (width, width))
        pixels = F.pixel_shuffle(grid, self.side)
        if pixels.shape[-1] == image_size:
            return pixels
        return F.interpolate(pixels, size=(image_size, image_size), mode="bilinear", align_corners=False)


HEADS: Final = {"classification": ClassificationHead, "segmentation": SegmentationHead}
"""The head of each task."""


def build_heads(dim: int, facts: Mapping[str, Mapping[str, Any]]) -> dict[str, nn.Module]:
    """Untrained heads from their JSON. Raises KeyError for a task that amb has no head for, ValueError for a wrong size."""
    for task, options in facts.items():
        for name, size in options.items():
            if type(size) is not int or size < 1:
                raise ValueError(f"{name} of {task} is a whole number, 1 or more, not {shortened(size)}")
    return {task: HEADS[task](dim, **options) for task, options in facts.items()}
