"""Batches of images as they pass between suites, methods and attacks, and the walks over them that training needs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor


class Batch(NamedTuple):
    """Images with what is known of them. Models normalise and resize images themselves."""

    images: Tensor  # (n, 3, height, width) float in [0, 1]
    labels: Tensor  # (n,) int64
    masks: Tensor | None = None  # (n, height, width) int64


@runtime_checkable
class Split(Protocol):
    """One share of a data set, addressed by index. The splits of a suite are disjoint."""

    n_classes: int
    n_mask_classes: int
    """0 where the data set has no masks."""

    def __len__(self) -> int: ...

    def batch(self, indices: Sequence[int]) -> Batch:
        """The images at `indices`; the same index always gives the same image."""
        ...


def in_order(split: Split, batch_size: int, limit: int | None = None) -> Iterator[Batch]:
    """Walk once over the first `limit` images of a split, in order."""
    n = min(len(split), limit or len(split))
    for start in range(0, n, batch_size):
        yield split.batch(range(start, min(start + batch_size, n)))


def shuffled(n: int, batch_size: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Index batches of one epoch over `n` items in random order; a short last batch is kept."""
    order = torch.randperm(n, generator=generator)
    for start in range(0, n, batch_size):
        yield order[start : start + batch_size]


def endless(n: int, batch_size: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Index batches for ever, epoch after epoch."""
    while True:
        yield from shuffled(n, batch_size, generator)
