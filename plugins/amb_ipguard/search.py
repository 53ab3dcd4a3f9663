"""The search for points near the boundary: all advance in one batch, each with its own Adam, and leave when done."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from amb import BatchSizeLimiter

_BETAS, _EPSILON = (0.9, 0.999), 1e-8  # Adam's usual ones


class Starts(NamedTuple):
    """Where the search begins, and between which classes each point shall come to lie."""

    images: Tensor  # (n, 3, height, width) in [0, 1]
    own: Tensor  # (n,) int64: i, what the owner's model calls the start
    target: Tensor  # (n,) int64: j


class Found(NamedTuple):
    """A point as the search left it; whether it is where it should be is for a fresh check to say."""

    place: int
    """Its place among the starts."""
    image: Tensor  # (3, height, width)
    steps: int
    backwards: int
    """Backward passes that its row was part of; the last may have been for the others' sake."""


class Gaps(NamedTuple):
    """How a point lies between its classes, by the logits Z."""

    margin: Tensor  # (n,): Z_j - Z_i
    lead: Tensor  # (n,): Z_i less the largest logit of a third class


def gaps(logits: Tensor, own: Tensor, target: Tensor) -> Gaps:
    """Margin and lead of logits (n, classes)."""
    pair = torch.stack([own, target], dim=1)
    third = logits.scatter(1, pair, -torch.inf).amax(dim=1)
    first, second = logits.gather(1, pair).unbind(dim=1)
    return Gaps(second - first, first - third)


def objective(logits: Tensor, own: Tensor, target: Tensor, k: float) -> Tensor:
    """ReLU(Z_i - Z_j + k) + ReLU(max_{t not i, j} Z_t - Z_i) of each point, (n,)."""
    margin, lead = gaps(logits, own, target)
    return F.relu(k - margin) + F.relu(-lead)


def search(
    logits: Callable[[Tensor], Tensor],
    starts: Starts,
    k: float,
    lr: float,
    max_iterations: int,
    batch: int,
    limiter: BatchSizeLimiter | None = None,
) -> Iterator[Found]:
    """Move every start until its objective is 0 or its steps are used up; yields points as they finish.

    One forward pass serves the check and the gradient. The gradient of a row does not depend on the other rows, so
    the sum of the objectives stands for all of them.
    """
    limiter = limiter or BatchSizeLimiter("searching")
    begun, rows = 0, _begin_rows(starts, slice(0))
    while len(rows.place) or begun < len(starts.images):
        fresh = _begin_rows(starts, slice(begun, begun + batch - len(rows.place)))
        begun, rows = begun + len(fresh.place), rows.join(fresh)
        parts = limiter.fit(partial(_look_in_parts, logits, rows, k, max_iterations), len(rows.place))
        over = torch.cat([part.over for part in parts])
        spare = torch.cat([part.over & part.has_gradient for part in parts])
        yield from _take_finished(rows.take(over), spare[over])
        if not bool(over.all()):
            rows = _step_adam(rows, torch.cat([part.gradient for part in parts]), lr)
        rows = rows.take(~over)


class _Seen(NamedTuple):
    """What one pass says of some rows."""

    over: Tensor  # (rows,) whether the objective is 0, or the steps are used up
    gradient: Tensor  # (rows, 3, height, width) of the objective; zeros where all rows of the part are over
    has_gradient: bool
    """Whether it was computed."""


def _look_in_parts(
    logits: Callable[[Tensor], Tensor], rows: _Rows, k: float, max_iterations: int, parts: list[slice]
) -> list[_Seen]:
    """One pass over the rows, in parts."""
    return [_look_at_once(logits, rows.take(part), k, max_iterations) for part in parts]


def _look_at_once(logits: Callable[[Tensor], Tensor], rows: _Rows, k: float, max_iterations: int) -> _Seen:
    points = rows.points.detach().requires_grad_()
    losses = objective(logits(points), rows.own, rows.target, k)  # (rows,)
    over = (losses == 0) | (rows.steps == max_iterations)
    if bool(over.all()):
        return _Seen(over, torch.zeros_like(rows.points), False)
    return _Seen(over, torch.autograd.grad(losses.sum(), points)[0], True)


class _Rows(NamedTuple):
    """Points on their way with their own Adam state; every part has one row per point."""

    place: Tensor  # (rows,) among the starts
    points: Tensor  # (rows, 3, height, width)
    own: Tensor  # (rows,)
    target: Tensor  # (rows,)
    mean: Tensor  # as the points: running mean of the gradient
    square: Tensor  # as the points: running mean of its square
    steps: Tensor  # (rows,)

    def take(self, chosen: Tensor | slice) -> _Rows:
        return _Rows(*(part[chosen] for part in self))

    def join(self, others: _Rows) -> _Rows:
        return _Rows(*map(torch.cat, zip(self, others, strict=True))) if len(others.place) else self


def _begin_rows(starts: Starts, chosen: slice) -> _Rows:
    images, own, target = (part[chosen] for part in starts)
    place = torch.arange(len(starts.own), device=own.device)[chosen]
    still = torch.zeros_like(images)
    return _Rows(place, images, own, target, still, still, torch.zeros_like(place))


@torch.no_grad()
def _step_adam(rows: _Rows, gradient: Tensor, lr: float) -> _Rows:
    """One step of Adam, each row by its own count of steps; then back into [0, 1]."""
    steps = rows.steps + 1
    mean = _BETAS[0] * rows.mean + (1 - _BETAS[0]) * gradient
    square = _BETAS[1] * rows.square + (1 - _BETAS[1]) * gradient.square()
    unbias = [(1 - beta ** steps.double()).float().view(-1, 1, 1, 1) for beta in _BETAS]
    move = lr * (mean / unbias[0]) / ((square / unbias[1]).sqrt() + _EPSILON)
    return rows._replace(points=(rows.points - move).clamp(0, 1), mean=mean, square=square, steps=steps)


def _take_finished(rows: _Rows, spare: Tensor) -> Iterator[Found]:
    """The rows one by one; `spare`, (rows,), says which were part of a backward pass for the sake of the others."""
    for place, image, steps, more in zip(
        rows.place.tolist(), rows.points, rows.steps.tolist(), spare.tolist(), strict=True
    ):
        yield Found(place, image, steps, steps + more)
