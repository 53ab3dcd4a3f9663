"""The activation profile of a model and its expressive block (ActiveMark, section 3.2.4 and Fig. 2)."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from math import inf, isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import torch
from torch import Tensor

if TYPE_CHECKING:
    from amb.api.vision import VisionModel

TOP: Final = 5
"""Largest magnitudes that count per image and block."""
CLEAR_JUMP: Final = 2.0
"""A block is called expressive where its profile is at least this many times that of the block before it."""
MASSIVE_LEVEL: Final = 100.0
MASSIVE_RATIO: Final = 1000.0
"""Sun et al. 2024: massive is |a| > 100 and at least 1000 times the median |a| of the same hidden state."""


@dataclass(frozen=True)
class Profile:
    """What each block's output looks like, averaged over images. Blocks count from 0."""

    top: tuple[float, ...]
    """Mean over images of the mean of the 5 largest |activation|: the paper's profile."""
    median: tuple[float, ...]
    """Mean over images of the median |activation|."""
    massive_share: tuple[float, ...]
    """Share of images with at least one massive activation by Sun et al.'s definition."""
    massive_features: tuple[int, ...]
    """Feature dimensions in which massive activations sit, over all blocks."""
    n_images: int

    @property
    def jumps(self) -> tuple[float, ...]:
        """How many times larger each block's profile is than the one before it; 1 for block 0."""
        return (1.0, *map(_divide, self.top[1:], self.top))

    @property
    def rises(self) -> tuple[float, ...]:
        """How much larger each block's profile is than the one before it; 0 for block 0."""
        return (0.0, *(after - before for before, after in zip(self.top, self.top[1:], strict=False)))

    @property
    def n_candidates(self) -> int:
        """Blocks that another follows: only those can be embedded at, for the blocks behind it are trained."""
        return max(1, len(self.top) - 1)

    @property
    def largest_jump(self) -> int:
        """The candidate with the largest rise over the block before it."""
        rises = self.rises[: self.n_candidates]
        return rises.index(max(rises))

    @property
    def clearness(self) -> float:
        """How many times larger the largest rise is than the next largest among the candidates; infinite where it is alone."""
        first, second = (*sorted(self.rises[: self.n_candidates], reverse=True), 0.0, 0.0)[:2]
        return _divide(first, max(second, 0.0))

    @property
    def expressive_block(self) -> int | None:
        """The first candidate with massive activations, else the one of a clear jump; None where there is neither."""
        for block, share in enumerate(self.massive_share[: self.n_candidates]):
            if share >= 0.5:
                return block
        return self.largest_jump if self.jumps[self.largest_jump] >= CLEAR_JUMP else None

    def to_json(self) -> dict[str, Any]:
        """The profile and what follows from it."""
        return {**asdict(self), "expressive_block": self.expressive_block, "largest_jump": self.largest_jump}


@torch.no_grad()
def activation_profile(model: VisionModel, images: Tensor, batch_size: int = 50) -> Profile:
    """Profile a model on images (n, 3, height, width) in [0, 1]; the paper takes 100. Needs at least one block."""
    tops, medians, massive = [], [], []
    features: set[int] = set()
    for start in range(0, len(images), batch_size):
        tokens = model.embed(images[start : start + batch_size])
        rows = []
        for block in range(model.n_blocks):
            tokens = model.run_blocks(tokens, block, block + 1)
            rows.append(_read_block(tokens))
            features.update(rows[-1][3])
        tops.append(torch.stack([row[0] for row in rows]))  # (blocks, n)
        medians.append(torch.stack([row[1] for row in rows]))
        massive.append(torch.stack([row[2] for row in rows]))
    return Profile(
        top=tuple(torch.cat(tops, dim=1).mean(dim=1).tolist()),
        median=tuple(torch.cat(medians, dim=1).mean(dim=1).tolist()),
        massive_share=tuple(torch.cat(massive, dim=1).float().mean(dim=1).tolist()),
        massive_features=tuple(sorted(features)),
        n_images=len(images),
    )


def choose_block(profile: Profile, fallback: float = 0.5) -> tuple[int, str]:
    """The block to embed at, and by which rule: the expressive one of those that a block follows, else `fallback` of the depth."""
    depth = len(profile.top)
    found = profile.expressive_block
    if found is not None:
        return found, _explain_choice(profile, found)
    block = min(max(round(fallback * depth) - 1, 0), depth - 2)
    last = depth - 1
    is_last = profile.massive_share[last] >= 0.5 or profile.jumps[last] >= CLEAR_JUMP
    why = f"none found but block {last}, which is the last" if is_last else "none found"
    return block, f"{why}, falling back to block {block} ({fallback:g} of the depth)"


def _explain_choice(profile: Profile, block: int) -> str:
    """Which rule chose a block, and how clear the choice is."""
    jump = f", {profile.jumps[block]:.1f} times the block before it" if block else ""
    if profile.massive_share[block] >= 0.5:
        return f"expressive block {block}: the first with massive activations{jump}"
    clear = (
        f"its rise {profile.clearness:.1f} times the next largest" if isfinite(profile.clearness) else "the only rise"
    )
    return f"expressive block {block}: the largest jump{jump}, {clear}"


def _divide(one: float, other: float) -> float:
    """Infinite, or 1 for nothing over nothing, where there is nothing to divide by."""
    return one / other if other else inf if one else 1.0


def draw_profile(profile: Profile, title: str, path: Path, chosen: int) -> None:
    """Save the figure of the profile: largest magnitudes and medians by block (the paper's Fig. 2)."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullFormatter

    figure = Figure(figsize=(5.2, 3.2), layout="constrained")
    axes = figure.add_subplot()
    blocks = range(len(profile.top))
    scale = "log" if min(*profile.top, *profile.median) > 0 else "linear"  # a dead network has a profile of zeros
    axes.plot(blocks, profile.top, marker="o", color="#0072b2", label=f"mean of the top {TOP}")
    axes.plot(blocks, profile.median, marker="s", color="#d55e00", label="median")
    axes.axvline(chosen, color="0.5", linestyle="--", label=f"block to embed at: {chosen}")
    axes.set(xlabel="block", ylabel="|activation|", yscale=scale, title=title, xticks=list(blocks))
    if scale == "log":
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.legend(frameon=False)
    figure.savefig(path, dpi=150)


def _read_block(tokens: Tensor) -> tuple[Tensor, Tensor, Tensor, set[int]]:
    """Top-5 mean (n,), median (n,), whether massive (n,), and the features where massive values sit."""
    size = tokens.abs().flatten(1)  # (n, tokens * dim)
    top = size.topk(TOP, dim=1).values
    median = size.median(dim=1).values
    limit = torch.maximum(median * MASSIVE_RATIO, torch.full_like(median, MASSIVE_LEVEL))
    is_massive = tokens.abs() > limit[:, None, None]
    where = is_massive.any(dim=0).any(dim=0).nonzero().flatten().tolist()
    return top.mean(dim=1), median, is_massive.flatten(1).any(dim=1), set(where)
