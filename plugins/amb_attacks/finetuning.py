"""The training behind `finetune`: a new head, one visible loop."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional as F

import amb
from amb.data import shuffled
from amb.heads import HEADS

if TYPE_CHECKING:
    from amb_attacks.finetune import FineTune

_WARM_UP = 0.1  # share of the steps, for the cosine schedule


def finetune(params: FineTune, model: amb.VisionModel, ctx: amb.Context) -> amb.VisionModel:
    """A copy of the model, trained with a head of its own on the attacker's images."""
    split = ctx.split("attacker")
    n_images = min(params.n_images, len(split))
    with ctx.seeded("head"):
        head = _new_head(params, model, split)
    tuned = model.with_head(params.task, head, f"{model.ref}+{params.canonical()}").train()
    tuned.backbone.requires_grad_(params.layers == "all").train(params.layers == "all")
    groups = [
        {"params": [weight for weight in tuned.backbone.parameters() if weight.requires_grad], "lr": params.lr},
        {"params": list(tuned.heads.parameters()), "lr": params.head_lr},
    ]
    optimizer = torch.optim.AdamW(groups, weight_decay=params.weight_decay)
    n_steps = params.epochs * math.ceil(n_images / params.batch)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _factor(params.schedule, step, n_steps))
    order = ctx.generator("batches")
    batches = (rows for _ in range(params.epochs) for rows in shuffled(n_images, params.batch, order))
    with ctx.seeded("dropout"):
        for rows in ctx.progress.track(batches, params.canonical(), n_steps):
            batch = split.batch(rows.tolist())
            target = batch.labels if params.task == "classification" else batch.masks
            assert target is not None
            loss = F.cross_entropy(tuned.logits(batch.images, params.task), target.to(ctx.device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return tuned.requires_grad_(True).eval()


def _new_head(params: FineTune, model: amb.VisionModel, split: amb.Split) -> nn.Module:
    if params.task == "classification":
        return HEADS["classification"](model.backbone.dim, split.n_classes)
    if not split.n_mask_classes:
        raise amb.BadParamsError(f"attack {params}: the attacker's images have no masks to train segmentation on.")
    pixels = split.batch([0]).images.shape[-1]
    patches = model.facts().n_tokens - min(model.backbone.n_prefix, 1)
    return HEADS["segmentation"](model.backbone.dim, split.n_mask_classes, max(1, round(pixels / patches**0.5)))


def _factor(schedule: str, step: int, n_steps: int) -> float:
    """Share of the learning rate at a step."""
    if schedule == "constant":
        return 1.0
    if schedule == "linear":
        return 1 - step / n_steps
    warm_up = max(1, round(_WARM_UP * n_steps))
    if step < warm_up:
        return (step + 1) / warm_up
    return 0.5 * (1 + math.cos(math.pi * (step - warm_up) / max(1, n_steps - warm_up)))
