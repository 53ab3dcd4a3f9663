"""The terms of MEA-Defender's loss, functions of logits, and the weight that balances them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional as F

_TINY: Final = 1e-9
_LARGEST_NORM: Final = 10.0
"""What gradients are divided by at most."""


def contrast(logits: Tensor, labels: Tensor, classes: Sequence[int], margin: float) -> Tensor:
    """Over neighbouring rows of these classes: d^2 / 2 where their labels agree, (margin - d)_+^2 / 2 where not.

    d is the Euclidean distance of their logits. The mean is divided by the number of pairs once more, as in the paper's code:
    without that it outweighs everything and the logits shrink to nothing. 0 where there are no two such rows.
    """
    chosen = torch.isin(labels, labels.new_tensor(classes))
    logits, labels = logits[chosen], labels[chosen]
    if len(labels) < 2:
        return logits.sum() * 0
    squares = (logits[1:] - logits[:-1]).square().sum(dim=1)
    apart = F.relu(margin - (squares + _TINY).sqrt()).square()
    return torch.where(labels[1:] == labels[:-1], squares, apart).mean() / 2 / len(squares)


def divergence(mixed: Tensor, pure: Tensor) -> Tensor:
    """Mean KL(mixed || pure) over rows of logits, (n, classes) each."""
    return F.kl_div(pure.log_softmax(dim=1), mixed.log_softmax(dim=1), reduction="batchmean", log_target=True)


def weigh_second(logits: Tensor, first: Tensor, second: Tensor) -> float:
    """The weight in 0..1 of the second of two losses by MGDA-UB: the smallest convex combination of their gradients.

    Gradients are those in the logits, each divided by its loss times its norm (at most 10), as the paper's code does with
    those in the weights.
    """
    one, two = (_normalise(loss, logits) for loss in (first, second))
    between = one - two
    if (square := float(between.square().sum())) == 0:
        return 0.5
    return min(max(float((one * between).sum()) / square, 0.001), 0.999)


def _normalise(loss: Tensor, logits: Tensor) -> Tensor:
    (gradient,) = torch.autograd.grad(loss, logits, retain_graph=True)
    scaled: Tensor = gradient / ((loss.detach() * gradient.norm()).clamp(max=_LARGEST_NORM) + 1e-5)
    return scaled
