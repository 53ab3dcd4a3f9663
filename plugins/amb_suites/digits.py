"""Coloured compositions of real digit scans: the images of the embedded suite.

The scans are the 1,797 UCI handwritten digits that scikit-learn carries (8 x 8, 16 grey levels; E. Alpaydin and
C. Kaynak, 1998). Each composition turns, scales and places one scan in colour on a textured ground of 32 x 32
pixels and comes with the class label and the mask of the ink. Composition `index` of a split is a pure function
of (split, index): every random number is a hash of the two, so any image can be drawn alone, in any order.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Final

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from amb import Batch

SIZE: Final = 32
N_CLASSES: Final = 10
SHARES: Final = {"owner": 0.50, "attacker": 0.25, "trigger": 0.08, "test": 0.17}
"""Share of the source scans that each split draws from; no scan serves two splits."""

_ARRANGEMENT: Final = 17  # random numbers for everything but the texture
_GRID: Final = 5  # the texture is a random colour field of 5 x 5 knots
_UNIFORMS: Final = _ARRANGEMENT + 3 * _GRID * _GRID


def compose(split: str, indices: Sequence[int]) -> Batch:
    """Draw the compositions `indices` of `split`; the same index always gives the same image.

    Images (n, 3, 32, 32) are whole multiples of 1/255, labels 0..9, masks (n, 32, 32) with 1 for ink.
    """
    scans, labels = _load_scans(split)
    u = _draw_uniforms(split, indices)
    chosen = (u[:, 0] * len(scans)).astype(np.int64)
    random = torch.from_numpy(u.astype(np.float32))
    alpha = _place_scans(scans[chosen], random)
    ground = _draw_ground(random)
    ink = _choose_ink(random, ground)
    images = ground * (1 - alpha) + ink * alpha
    images = (images.clamp(0, 1) * 255).round() / 255
    return Batch(images, labels[chosen], (alpha[:, 0] > 0.5).long())


def scan_indices(split: str) -> np.ndarray:
    """Which of the 1,797 scans a split draws from."""
    names = list(SHARES)
    order = np.argsort(_mix_bits(np.arange(1797, dtype=np.uint64) + np.uint64(0xD161)), kind="stable")
    edges = np.round(np.cumsum([0.0, *SHARES.values()]) * 1797).astype(int)
    place = names.index(split)
    return np.sort(order[edges[place] : edges[place + 1]])


@functools.cache
def _load_scans(split: str) -> tuple[Tensor, Tensor]:
    from sklearn.datasets import load_digits

    data = load_digits()
    chosen = scan_indices(split)
    scans = torch.from_numpy(data.images[chosen].astype(np.float32)) / 16
    return scans[:, None], torch.from_numpy(data.target[chosen].astype(np.int64))


def _place_scans(scans: Tensor, random: Tensor) -> Tensor:
    """Turn, scale and place each scan; returns how much ink covers each pixel, (n, 1, 32, 32) in [0, 1]."""
    angle = (random[:, 1] - 0.5) * math.radians(40)
    scale = 0.55 + 0.35 * random[:, 2]  # side of the scan as a share of the image's
    room = 1 - scale
    shift_x, shift_y = (2 * random[:, 3] - 1) * room, (2 * random[:, 4] - 1) * room
    cos, sin = torch.cos(angle) / scale, torch.sin(angle) / scale
    theta = torch.stack(
        [cos, -sin, -(cos * shift_x - sin * shift_y), sin, cos, -(sin * shift_x + cos * shift_y)], dim=1
    ).view(-1, 2, 3)
    grid = F.affine_grid(theta, [len(scans), 1, SIZE, SIZE], align_corners=False)
    drawn = F.grid_sample(scans, grid, mode="bicubic", padding_mode="zeros", align_corners=False)
    return ((drawn - 0.25) / 0.35).clamp(0, 1)


def _draw_ground(random: Tensor) -> Tensor:
    """A textured ground: one colour, a smooth random field and a stripe pattern, (n, 3, 32, 32)."""
    n = len(random)
    field = random[:, _ARRANGEMENT:].view(n, 3, _GRID, _GRID) - 0.5
    field = F.interpolate(field, size=(SIZE, SIZE), mode="bicubic", align_corners=False)
    ys, xs = torch.meshgrid(torch.linspace(0, 1, SIZE), torch.linspace(0, 1, SIZE), indexing="ij")
    turn = math.pi * random[:, 5]
    waves = 2 + 6 * random[:, 6]
    along = torch.cos(turn)[:, None, None] * xs + torch.sin(turn)[:, None, None] * ys
    stripes = torch.sin(2 * math.pi * (waves[:, None, None] * along + random[:, 7][:, None, None]))
    base = random[:, 8:11, None, None]
    return base + 0.5 * field + 0.12 * random[:, 11][:, None, None, None] * stripes[:, None]


def _choose_ink(random: Tensor, ground: Tensor) -> Tensor:
    """A colour that stands off the ground: at least 0.35 brighter or darker than its mean, (n, 3, 1, 1)."""
    level = ground.mean(dim=(1, 2, 3))
    brighter = (level < 0.5).float()
    distance = 0.35 + 0.25 * random[:, 12]
    target = level + distance * (2 * brighter - 1)
    hue = random[:, 13:16] - 0.5
    hue = hue - hue.mean(dim=1, keepdim=True)
    return (target[:, None] + 0.5 * hue)[:, :, None, None]


def _draw_uniforms(split: str, indices: Sequence[int]) -> np.ndarray:
    """Random numbers in [0, 1) for each index, (n, _UNIFORMS): a counter-based generator."""
    stream = np.uint64(list(SHARES).index(split) + 1)
    rows = _mix_bits(np.asarray(indices, dtype=np.uint64) * np.uint64(8) + stream)
    columns = np.arange(_UNIFORMS, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    with np.errstate(over="ignore"):
        mixed = _mix_bits(rows[:, None] + columns[None])
    return np.asarray((mixed >> np.uint64(11)) * 2.0**-53)


def _mix_bits(x: np.ndarray) -> np.ndarray:
    """The finaliser of SplitMix64 (Steele, Lea, Flood 2014, fig. 17): 64 well-mixed bits of each number."""
    with np.errstate(over="ignore"):
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(x ^ (x >> np.uint64(31)))


class DigitSplit:
    """One role's compositions as an `amb.Split`."""

    n_classes = N_CLASSES
    n_mask_classes = 2
    LENGTHS: Final = {"owner": 8192, "attacker": 4096, "trigger": 1024, "test": 2048}

    def __init__(self, role: str) -> None:
        self.role = role

    def __len__(self) -> int:
        return self.LENGTHS[self.role]

    def batch(self, indices: Sequence[int]) -> Batch:
        """The compositions at `indices`."""
        return compose(self.role, indices)
