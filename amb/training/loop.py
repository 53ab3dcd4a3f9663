"""Training a model with a new task head: one visible loop, for fine-tuning attacks and for a suite's classifiers."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from amb.api.data import Batch, shuffled
from amb.errors import BadParamsError, NoHeadError
from amb.models.heads import HEADS
from amb.training.accumulate import GradientAccumulator
from amb.training.config import Head, Task, TrainingConfig

if TYPE_CHECKING:
    from amb.api.context import Context
    from amb.api.data import Split
    from amb.api.vision import VisionModel

Perturb = Callable[["VisionModel", Tensor, Tensor], Tensor]
"""From the model as it is now, images and their targets to the images that it is trained on."""

_MOST_OUTPUTS: Final = 2048  # of a segmentation head for one token: classes x pixels


def tune(
    model: VisionModel,
    split: Split,
    task: Task,
    training: TrainingConfig,
    ctx: Context,
    ref: str | None = None,
    *,
    head: Head = "new",
    perturb: Perturb | None = None,
) -> VisionModel:
    """A copy of the model with a head for the task as its only one, trained on the split with AdamW.

    A kept head is trained at the encoder's rate. `perturb` is as for `fit`.
    """
    if head == "keep":
        training = replace(training, head_lr=training.lr)
        start = kept_head(model, split, task)
    else:
        start = new_head(model, split, task, ctx)
    tuned = model.with_head(task, start, ref or f"{model.ref}+{task}")
    tuned.backbone.requires_grad_(training.layers == "all")
    return fit(tuned, split, task, training, ctx, perturb)


def train_classifier(model: VisionModel, ctx: Context) -> VisionModel:
    """The model with a head for the classes of the owner's images, trained together on them; a new model."""
    return tune(model, ctx.split("owner"), "classification", TrainingConfig("cosine", epochs=5), ctx)


def fit(
    model: VisionModel, split: Split, task: Task, training: TrainingConfig, ctx: Context, perturb: Perturb | None = None
) -> VisionModel:
    """Train in place whatever of the model requires a gradient, on the split with AdamW; returns the model.

    `perturb` makes of each batch the images that are trained on, for adversarial training.
    """
    n_images = min(training.n_images, len(split))
    encoder = [weight for weight in model.backbone.parameters() if weight.requires_grad]
    model.train().backbone.train(bool(encoder))  # a frozen encoder keeps its batch norms' statistics too
    groups = [
        {"params": encoder, "lr": training.lr},
        {"params": list(model.heads.parameters()), "lr": training.head_lr},
    ]
    optimizer = torch.optim.AdamW(groups, weight_decay=training.weight_decay)
    n_steps = training.epochs * math.ceil(n_images / training.batch)
    rate = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: training.factor(step, n_steps))
    order = ctx.generator("batches")
    batches = (rows for _ in range(training.epochs) for rows in shuffled(n_images, training.batch, order))
    accumulator = GradientAccumulator(ctx, optimizer, rate)
    with ctx.seeded("dropout"):
        for rows, batch in ctx.progress.track(ctx.load(split, batches), f"train for {task}", n_steps):
            targets = cast(Tensor, batch.labels if task == "classification" else batch.masks).to(ctx.device)

            def loss_of(part: slice, batch: Batch = batch, targets: Tensor = targets) -> Tensor:
                images = perturb(model, batch.images[part], targets[part]) if perturb else batch.images[part]
                return F.cross_entropy(model.logits(images, task), targets[part])

            accumulator.step(loss_of, len(rows))
    return model.requires_grad_(True).eval()


def new_head(model: VisionModel, split: Split, task: Task, ctx: Context) -> nn.Module:
    """An untrained head for the split's classes. Raises BadParamsError where there are no masks to train it on."""
    if task == "classification":
        sizes = [split.n_classes]
    elif split.n_mask_classes:
        pixels = split.batch([0]).images.shape[-1]
        patches = model.facts().n_tokens - min(model.backbone.n_prefix, 1)
        most = math.isqrt(_MOST_OUTPUTS // split.n_mask_classes)  # the head spreads what is coarser over the pixels
        sizes = [split.n_mask_classes, max(1, min(most, round(pixels / patches**0.5)))]
    else:
        raise BadParamsError(f"{model.ref}: these images have no masks to train segmentation on.")
    with ctx.seeded("head"):
        return HEADS[task](model.backbone.dim, *sizes)


def kept_head(model: VisionModel, split: Split, task: Task) -> nn.Module:
    """A copy of the model's own head. Raises NoHeadError, and BadParamsError where it is of other classes."""
    if task not in model.heads:
        raise NoHeadError(f"{model.ref} has no {task} head to keep. Train a new one.")
    head = cast(Any, model.heads[task])
    n_classes = split.n_classes if task == "classification" else split.n_mask_classes
    if head.n_classes != n_classes:
        raise BadParamsError(
            f"{model.ref} has a {task} head of {head.n_classes} classes, these images have {n_classes}: "
            "it cannot be kept. Train a new one."
        )
    return cast(nn.Module, copy.deepcopy(head))
