"""Bits that are the signs of projections of a model's weights: trained into it while its function is held, and read."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import islice
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from amb.api.data import endless
from amb.api.records import Evidence
from amb.training.accumulate import GradientAccumulator

if TYPE_CHECKING:
    from amb.api.context import Context
    from amb.api.vision import VisionModel


def train_held(
    owner: VisionModel,
    marked: VisionModel,
    ctx: Context,
    optimizer: torch.optim.Optimizer,
    mark: Callable[[], Tensor],
    *,
    weight: float,
    steps: int,
    batch: int,
    n_images: int,
) -> dict[str, float]:
    """Minimise drift + `weight` * mark() on the owner's first `n_images` images, at a rate that falls to a fiftieth.

    `mark` is a loss of the weights of `marked` alone, which `optimizer` has. Returns both terms at the last step.
    """
    accumulator = GradientAccumulator(ctx, optimizer, torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.02, steps))
    split = ctx.split("owner")
    rows_of_steps = islice(endless(min(n_images, len(split)), batch, ctx.generator("batches")), steps)
    terms = torch.zeros(2)
    for rows, shown in ctx.progress.track(ctx.load(split, rows_of_steps), "embed", steps):

        def loss_of(part: slice, images: Tensor = shown.images) -> Tensor:
            nonlocal terms
            found = torch.stack([measure_drift(owner, marked, images[part]), mark()])
            terms = found.detach()
            return found @ found.new_tensor([1.0, weight])

        accumulator.step(loss_of, len(rows))
    task, marking = terms.tolist()
    return {"task_loss": round(task, 5), "mark_loss": round(marking, 5)}


def measure_drift(owner: VisionModel, marked: VisionModel, images: Tensor) -> Tensor:
    """|f - f'|^2 / |f|^2 of output tokens, and the same of the embedding: 0 where the function stays."""
    with torch.no_grad():
        held = owner.tokens(images)
        answers = owner.pool(held)
    tokens = marked.tokens(images)
    moved = ((tokens, held), (marked.pool(tokens), answers))
    return torch.stack([(new - old).square().sum() / old.square().sum() for new, old in moved]).sum()


def read_signs(projections: Tensor, message: Tensor) -> Evidence:
    """One trial: the signs of projections, (bits,), beside a message, (bits,) bool. A bit without a sign counts as wrong."""
    found = projections.detach().double().cpu()
    silent = (found == 0) | ~found.isfinite()
    observed = torch.where(silent, ~message, found > 0)
    return Evidence(message.long().numpy()[None], observed.long().numpy()[None])


def measure_likelihood(projections: Tensor, message: Tensor) -> Tensor:
    """Mean log-likelihood of a bit whose projection is its logit, each no less than a guess; differentiable."""
    signs = (2 * message.float() - 1).to(projections)
    return F.logsigmoid(signs * projections).clamp(min=-math.log(2)).mean()
