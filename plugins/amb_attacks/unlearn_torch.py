"""The training behind `adaptive-unlearn`: one visible loop against the agreement of a key."""

from __future__ import annotations

import math
from itertools import islice
from typing import TYPE_CHECKING, Final

import torch
from torch import Tensor
from torch.nn import functional as F

import amb
from amb import GradientAccumulator, endless
from amb_attacks.claimant import claimant, method_of, rate, read, require_fit

if TYPE_CHECKING:
    from amb_attacks.unlearn import Unlearn

_OWN: Final = ("decoder", "triggers")  # what a thief without the owner's key can make up, the best first


def unlearn(params: Unlearn, model: amb.VisionModel, ctx: amb.Context) -> amb.VisionModel:
    """A copy of the model on which the key reads no better than by chance, as far as the steps go."""
    method, student = method_of(ctx), model.copy(f"{model.ref}+{params.canonical()}")
    if params.steps == 0:
        return student
    key = ctx.key if params.knows_key else _make_own_key(params, method, model, ctx)
    if key is None:
        raise amb.BadParamsError(f"attack {params}: it trains against the owner's key, and there is none.")
    require_fit(method, model, key)
    chance = -math.log(read(method, model, key, ctx).alphabet)
    ctx.note(key_rate_before=rate(method, model, key, ctx))
    _train_against_key(
        params, _strip_filters(model.copy()).requires_grad_(False), _strip_filters(student), key, chance, ctx
    )
    student.requires_grad_(True).eval()
    ctx.note(key_rate=rate(method, student, key, ctx))
    return student


def _train_against_key(
    params: Unlearn, stolen: amb.VisionModel, student: amb.VisionModel, key: amb.Key, chance: float, ctx: amb.Context
) -> None:
    """Minimise max(agreement - chance, 0) + lam * drift over the encoder's weights."""
    method, split = method_of(ctx), ctx.split("attacker")
    student.heads.requires_grad_(False)
    optimizer = torch.optim.AdamW(student.backbone.parameters(), lr=params.lr, weight_decay=0.0)
    rows_of_steps = endless(min(params.n_images, len(split)), params.batch, ctx.generator("unlearning batches"))
    trials = ctx.generator("trials to unlearn")
    accumulator = GradientAccumulator(ctx, optimizer)
    batches = ctx.load(split, islice(rows_of_steps, params.steps))
    for rows, batch in ctx.progress.track(batches, params.canonical(), params.steps):

        def loss_of(part: slice, images: Tensor = batch.images) -> Tensor:
            n_trials = max(1, round(params.batch * (part.stop - part.start) / len(images)))
            excess = F.relu(method.agreement(student, key, n_trials, trials) - chance)
            return excess + params.lam * drift(stolen, student, images[part])

        accumulator.step(loss_of, len(rows))


def drift(stolen: amb.VisionModel, student: amb.VisionModel, images: Tensor) -> Tensor:
    """|f - f~|^2 / |f|^2 of the output tokens, and the same of the embedding; 0 where nothing has moved."""
    with torch.no_grad():
        target = stolen.tokens(images)
    tokens = student.tokens(images)
    embeddings = student.backbone.pool(tokens), stolen.backbone.pool(target)
    return _measure_change(tokens, target) + _measure_change(*embeddings)


def _measure_change(moved: Tensor, target: Tensor) -> Tensor:
    return (moved - target).square().sum() / target.square().sum()


def _make_own_key(params: Unlearn, method: amb.Method, model: amb.VisionModel, ctx: amb.Context) -> amb.Key:
    """A key that the thief makes without the owner's, and that reads on the stolen model."""
    require_fit(method, model)
    own = claimant(ctx, "a key to unlearn")
    for what in _OWN:
        if what in method.forgeries:
            return method.forge(model, what, params.budget, own)
    return method.embed(model, own).key


def _strip_filters(model: amb.VisionModel) -> amb.VisionModel:
    """The model without its filters, as its thief has it; batch norms and dropout stay as when it answers."""
    model.train()
    model.backbone.eval()
    model.heads.eval()
    return model
