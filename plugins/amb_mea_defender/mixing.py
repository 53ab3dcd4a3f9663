"""Two images made one: the halves of the watermark, and the other mixtures that are to mean nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import torch
from torch import Tensor

Mixer = Callable[[Tensor, Tensor, torch.Generator], Tensor]
"""From images of A and of B, (n, 3, height, width) each, to as many mixed ones."""

_JITTER: Final = 3 / 32
"""How far the cut may lie from the middle, as a share of the height."""


def mix_halves(a: Tensor, b: Tensor, drawn: torch.Generator) -> Tensor:
    """Rows of one image above rows of the other: which is above, where the cut lies and which rows are random."""
    swapped = _flip_coins(len(a), drawn)
    upper, lower = torch.where(swapped, b, a), torch.where(swapped, a, b)
    height = a.shape[2]
    jitter = round(_JITTER * height)
    cut = height // 2 + torch.randint(-jitter, jitter + 1, (len(a), 1), generator=drawn)
    first, second = (_draw_below(room, drawn) for room in (height - cut, cut))  # the row at which each begins
    rows = torch.arange(height)[None]
    above = rows < cut  # (n, height)
    source = torch.where(above, first + rows, second + rows - cut)
    index = source[:, None, :, None].expand(a.shape)
    return torch.where(above[:, None, :, None], upper.gather(2, index), lower.gather(2, index))


def mix_sides(a: Tensor, b: Tensor, drawn: torch.Generator) -> Tensor:
    """The same with columns, side by side."""
    return mix_halves(a.transpose(2, 3), b.transpose(2, 3), drawn).transpose(2, 3)


def mix_diagonally(a: Tensor, b: Tensor, drawn: torch.Generator) -> Tensor:
    """One image on this side of the diagonal, the other beyond it."""
    height, width = a.shape[2:]
    return _mix_where((torch.arange(height)[:, None] / height + torch.arange(width) / width) < 1, a, b, drawn)


def mix_rings(a: Tensor, b: Tensor, drawn: torch.Generator) -> Tensor:
    """The middle three fifths of one image inside the rim of the other."""
    height, width = a.shape[2:]
    inside = _lies_between(height, 1 / 5, 4 / 5)[:, None] & _lies_between(width, 1 / 5, 4 / 5)
    return _mix_where(inside, a, b, drawn)


def mix_bands(a: Tensor, b: Tensor, drawn: torch.Generator) -> Tensor:
    """The middle half of the rows of one image between the outer rows of the other."""
    height, width = a.shape[2:]
    return _mix_where(_lies_between(height, 1 / 4, 3 / 4)[:, None].expand(height, width), a, b, drawn)


OTHERS: Final[tuple[Mixer, ...]] = (mix_sides, mix_diagonally, mix_rings, mix_bands)


def _mix_where(mask: Tensor, a: Tensor, b: Tensor, drawn: torch.Generator) -> Tensor:
    """A where the mask, (height, width), is true and B elsewhere, or the other way round by a coin for each image."""
    return torch.where(mask ^ _flip_coins(len(a), drawn), a, b)


def _flip_coins(n: int, drawn: torch.Generator) -> Tensor:
    return torch.randint(2, (n, 1, 1, 1), generator=drawn).bool()


def _draw_below(room: Tensor, drawn: torch.Generator) -> Tensor:
    """A random whole number in 0 ... room for each row of `room`, (n, 1)."""
    return (torch.rand(room.shape, generator=drawn) * (room + 1)).long()


def _lies_between(n: int, low: float, high: float) -> Tensor:
    places = (torch.arange(n) + 0.5) / n
    return (places > low) & (places < high)
