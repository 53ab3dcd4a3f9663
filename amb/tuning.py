"""Training a model with a new task head: one visible loop, for fine-tuning attacks and for a suite's classifiers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from amb.data import shuffled
from amb.errors import BadParamsError
from amb.heads import HEADS

if TYPE_CHECKING:
    from amb.context import Context
    from amb.data import Split
    from amb.vision import VisionModel

Shape = Literal["constant", "cosine", "linear"]
"""Learning rate over the steps: constant, cosine to 0 after a tenth of warm-up, or linear to 0."""
Task = Literal["classification", "segmentation"]

_WARM_UP: Final = 0.1  # share of the steps, for the cosine schedule


@dataclass(frozen=True)
class Schedule:
    """How long and how fast to train, and which layers."""

    shape: Shape = "constant"
    lr: float = 1e-5
    """Learning rate of the encoder."""
    head_lr: float = 3e-3
    """Learning rate of the new head."""
    weight_decay: float = 0.01
    """AdamW's weight decay."""
    epochs: int = 5
    batch: int = 64
    n_images: int = 2048
    """Train on the first so many images of the split, or on all where it has fewer."""
    layers: Literal["all", "head"] = "all"

    def factor(self, step: int, n_steps: int) -> float:
        """Share of the learning rate at a step."""
        if self.shape == "constant":
            return 1.0
        if self.shape == "linear":
            return 1 - step / n_steps
        warm_up = max(1, round(_WARM_UP * n_steps))
        if step < warm_up:
            return (step + 1) / warm_up
        return 0.5 * (1 + math.cos(math.pi * (step - warm_up) / max(1, n_steps - warm_up)))


def tune(
    model: VisionModel, split: Split, task: Task, schedule: Schedule, ctx: Context, ref: str | None = None
) -> VisionModel:
    """A copy of the model with a new head for the task as its only one, trained on the split with AdamW."""
    n_images = min(schedule.n_images, len(split))
    with ctx.seeded("head"):
        head = _new_head(model, split, task)
    tuned = model.with_head(task, head, ref or f"{model.ref}+{task}").train()
    tuned.backbone.requires_grad_(schedule.layers == "all").train(schedule.layers == "all")
    groups = [
        {"params": [weight for weight in tuned.backbone.parameters() if weight.requires_grad], "lr": schedule.lr},
        {"params": list(tuned.heads.parameters()), "lr": schedule.head_lr},
    ]
    optimizer = torch.optim.AdamW(groups, weight_decay=schedule.weight_decay)
    n_steps = schedule.epochs * math.ceil(n_images / schedule.batch)
    rate = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: schedule.factor(step, n_steps))
    order = ctx.generator("batches")
    batches = (rows for _ in range(schedule.epochs) for rows in shuffled(n_images, schedule.batch, order))
    with ctx.seeded("dropout"):
        for rows in ctx.progress.track(batches, f"train for {task}", n_steps):
            batch = split.batch(rows.tolist())
            target = cast(Tensor, batch.labels if task == "classification" else batch.masks)
            loss = F.cross_entropy(tuned.logits(batch.images, task), target.to(ctx.device))
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            optimizer.zero_grad()
            rate.step()
    return tuned.requires_grad_(True).eval()


def _new_head(model: VisionModel, split: Split, task: Task) -> nn.Module:
    if task == "classification":
        return HEADS["classification"](model.backbone.dim, split.n_classes)
    if not split.n_mask_classes:
        raise BadParamsError(f"{model.ref}: these images have no masks to train segmentation on.")
    pixels = split.batch([0]).images.shape[-1]
    patches = model.facts().n_tokens - min(model.backbone.n_prefix, 1)
    return HEADS["segmentation"](model.backbone.dim, split.n_mask_classes, max(1, round(pixels / patches**0.5)))
