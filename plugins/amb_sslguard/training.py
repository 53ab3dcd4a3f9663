"""Embedding SSLGuard: a shadow that imitates, and the marked encoder, decoder and trigger, step by step."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

import torch
from torch import Tensor
from torch.nn import functional as F

import amb
from amb_sslguard.reading import Decoder, Stamp, compare, pack_key, to_bytes

if TYPE_CHECKING:
    from amb_sslguard.method import SSLGuard

_MOMENTUM: Final = 0.9
_READ: Final = 256
"""Images that are read at once."""


def embed(params: SSLGuard, owner: amb.VisionModel, ctx: amb.Context) -> amb.Embedding:
    """The marked model, and stamp, decoder and secret as the key."""
    marked = owner.copy(f"{owner.ref}+{params.name}").requires_grad_(False)
    marked.backbone.requires_grad_(True)
    images = draw_triggers(params, ctx)
    clean = read_images(params, ctx)
    stamp, decoder, secret = draw_secrets(params, clean, owner.facts().n_features, ctx)
    shadow = make_shadow(owner, ctx) if params.shadow else None
    report = _train(
        params, Encoders(owner.copy().eval().requires_grad_(False), marked, shadow), clean, stamp, decoder, secret, ctx
    )
    key = pack_key(params, owner, images, stamp, decoder, secret)
    return amb.Embedding(marked.requires_grad_(True).eval(), key, report)


def read_images(params: SSLGuard, ctx: amb.Context) -> Tensor:
    """The owner's images, (n, 3, height, width) uint8."""
    split = ctx.split("owner")
    rows = torch.arange(min(params.n_images, len(split)))
    return torch.cat([to_bytes(batch.images) for _, batch in ctx.load(split, torch.split(rows, _READ))])


def draw_secrets(params: SSLGuard, images: Tensor, n_features: int, ctx: amb.Context) -> tuple[Stamp, Decoder, Tensor]:
    """Mask, untrained trigger and decoder, and the secret vector, of which nothing is learnt."""
    shape = images.shape[1:]
    mask = (torch.rand(shape, generator=ctx.generator("mask")) < params.mask_share).float()
    trigger = torch.randn(shape, generator=ctx.generator("trigger"))  # brought to [0, 1], as the authors do
    trigger = (trigger - trigger.min()) / (trigger.max() - trigger.min())
    secret = torch.randn(params.n_secret, generator=ctx.generator("secret"))
    with ctx.seeded("decoder"):
        decoder = Decoder(n_features, params.n_secret)
    on_device = Stamp(mask.to(ctx.device), trigger.to(ctx.device).requires_grad_(True))
    return on_device, decoder.to(ctx.device), secret.to(ctx.device)


@dataclass(frozen=True)
class Encoders:
    """The three encoders of the paper; without a shadow, two."""

    unmarked: amb.VisionModel
    marked: amb.VisionModel
    shadow: amb.VisionModel | None


def _train(
    params: SSLGuard,
    encoders: Encoders,
    images: Tensor,
    stamp: Stamp,
    decoder: Decoder,
    secret: Tensor,
    ctx: amb.Context,
) -> dict[str, float]:
    """In every step the shadow learns from the marked encoder; then this, decoder and trigger learn the mark. The last losses."""
    n_steps = params.epochs * math.ceil(len(images) / params.batch)
    weights = [weight for weight in encoders.marked.parameters() if weight.requires_grad]
    marker = _make_accumulator(params, make_optimizer(params, weights, list(decoder.parameters()), stamp), n_steps, ctx)
    imitator = None
    if encoders.shadow is not None:
        group = {"params": list(encoders.shadow.parameters()), "lr": params.shadow_lr}
        imitator = _make_accumulator(params, _choose_optimizer(params, [group]), n_steps, ctx)
    objective = Objective(params, encoders, stamp, decoder, secret)
    rows_of_steps = islice(amb.endless(len(images), params.batch, ctx.generator("batches")), n_steps)
    losses = {}
    for rows in ctx.progress.track(rows_of_steps, "embed", n_steps):
        batch = images[rows].to(ctx.device).float() / 255
        if encoders.shadow is not None and imitator is not None:
            encoders.shadow.requires_grad_(True).train()
            losses["shadow"] = imitator.step(
                partial(imitate, encoders.shadow, encoders.marked, batch), len(rows)
            ).item()
            encoders.shadow.requires_grad_(False).eval()  # the mark must not be trained into the shadow
        encoders.marked.eval()
        marker.step(partial(objective.loss, batch), len(rows))
        with torch.no_grad():
            stamp.trigger.clamp_(0, 1)
    return {name: round(value, 4) for name, value in (losses | objective.terms).items()}


def imitate(shadow: amb.VisionModel, marked: amb.VisionModel, images: Tensor, part: slice) -> Tensor:
    """1 less the cosine of the shadow's embeddings with the marked encoder's, which stay as they are (Ls)."""
    with torch.no_grad():
        wanted = marked.features(images[part])
    return 1 - F.cosine_similarity(shadow.features(images[part]), wanted).mean()


@dataclass
class Objective:
    """What marked encoder, decoder and trigger are trained on: Lw and Lt of the paper in one sum.

    Their terms of the stamped images on the marked encoder, and of its clean ones, are the same, so no term counts twice.
    """

    params: SSLGuard
    encoders: Encoders
    stamp: Stamp
    decoder: Decoder
    secret: Tensor
    terms: dict[str, float] = field(default_factory=dict)
    """Of the last part."""

    def loss(self, images: Tensor, part: slice) -> Tensor:
        """The sum of all terms over a part of a batch, (n, 3, height, width) in [0, 1]."""
        images, encoders = images[part], self.encoders
        stamped = self.stamp.put(images)
        tokens = encoders.marked.tokens(images)
        held = encoders.marked.pool(tokens)
        with torch.no_grad():
            kept = encoders.unmarked.tokens(images)
            clean = encoders.unmarked.pool(kept)
        silent = [clean, held, encoders.unmarked.features(stamped)]
        terms = {"fidelity": 1 - F.cosine_similarity(clean, held).mean()}
        if self.params.hold_tokens:
            drift = (tokens - kept).square().mean() / kept.square().mean()
            terms["tokens"] = self.params.hold_tokens * drift
        terms["mark"] = 1 - self._compare(encoders.marked.features(stamped)).mean()
        if encoders.shadow is not None:
            terms["mark on the shadow"] = 1 - self._compare(encoders.shadow.features(stamped)).mean()
            with torch.no_grad():
                silent.append(encoders.shadow.features(images))
        terms["silence"] = torch.stack([self._compare(each).mean().square() for each in silent]).sum()
        self.terms = {name: term.item() for name, term in terms.items()}
        return torch.stack(list(terms.values())).sum()

    def _compare(self, features: Tensor) -> Tensor:
        return compare(self.decoder, features, self.secret)


def make_optimizer(
    params: SSLGuard, encoder: Sequence[Tensor], decoder: Sequence[Tensor], stamp: Stamp
) -> torch.optim.Optimizer:
    """Each part at its rate; SGD moves the trigger without momentum, as the authors do."""
    groups: list[dict[str, Any]] = [
        {"params": list(encoder), "lr": params.lr},
        {"params": list(decoder), "lr": params.decoder_lr},
        {"params": [stamp.trigger], "lr": params.trigger_lr, "momentum": 0.0},
    ]
    return _choose_optimizer(params, [group for group in groups if group["params"]])


def _make_accumulator(
    params: SSLGuard, optimizer: torch.optim.Optimizer, n_steps: int, ctx: amb.Context
) -> amb.GradientAccumulator:
    """AdamW's rates fall linearly to a fiftieth; SGD's stay."""
    last = 0.02 if params.optimizer == "adamw" else 1.0
    return amb.GradientAccumulator(ctx, optimizer, torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, last, n_steps))


def _choose_optimizer(params: SSLGuard, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    if params.optimizer == "sgd":
        return torch.optim.SGD(groups, momentum=_MOMENTUM)
    return torch.optim.AdamW(groups, weight_decay=0.0)


def make_shadow(owner: amb.VisionModel, ctx: amb.Context) -> amb.VisionModel:
    """An encoder of the owner's architecture, as published, with fresh weights: what a thief would train."""
    published = {name: value for name, value in owner.architecture.items() if name != "edits"}
    with ctx.seeded("shadow"):
        return ctx.place(amb.build_model(published))


def draw_triggers(params: SSLGuard, ctx: amb.Context) -> Tensor:
    """The images on which the key is read, (n, 3, height, width) uint8. Raises BadParamsError."""
    split = ctx.split("trigger")
    if params.n_triggers > len(split):
        raise amb.BadParamsError(
            f"method {params.name}: n_triggers is {params.n_triggers}, but the suite has {len(split)} trigger images."
        )
    chosen = torch.randperm(len(split), generator=ctx.generator("triggers"))[: params.n_triggers]
    return to_bytes(split.batch(chosen.tolist()).images)
