"""Forging SSLGuard keys: what a claimant can choose after the fact so that an innocent model reads as marked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import amb
from amb_sslguard.reading import Stamp, compare, open_decoder, open_images, open_stamp, pack_key, to_bytes
from amb_sslguard.training import draw_secrets, draw_triggers, make_optimizer, read_images

if TYPE_CHECKING:
    from amb_sslguard.method import SSLGuard


def forge_messages(params: SSLGuard, model: amb.VisionModel, budget: int, ctx: amb.Context) -> amb.Key:
    """The owner's key with another secret: the mean direction of what its decoder makes of the model's stamped embeddings."""
    key = _require_key(params, ctx, "messages")
    view = amb.SuspectView(model.copy(), params.access)
    with torch.no_grad():
        decoded = open_decoder(key)(view.features(open_stamp(key).put(open_images(key))).cpu())
    secret = F.normalize(decoded, dim=1).mean(dim=0)
    return replace(key, tensors={**key.tensors, "secret": secret.numpy()})


def forge_triggers(params: SSLGuard, model: amb.VisionModel, budget: int, ctx: amb.Context) -> amb.Key:
    """The owner's key with a trigger that decodes to the owner's secret on the model."""
    key = _require_key(params, ctx, "triggers")
    mask, trigger = open_stamp(key)
    stamp = Stamp(mask.to(ctx.device), trigger.to(ctx.device).requires_grad_(True))
    decoder, secret = open_decoder(key).to(ctx.device).requires_grad_(False), torch.from_numpy(key.tensors["secret"])
    _train_frozen(params, model, stamp, decoder, secret.to(ctx.device), budget, ctx)
    return replace(key, tensors={**key.tensors, "trigger": to_bytes(stamp.trigger).cpu().numpy()})


def forge_decoder(params: SSLGuard, model: amb.VisionModel, budget: int, ctx: amb.Context) -> amb.Key:
    """A key of the claimant's own: trigger and decoder trained on the model as it is, the secret drawn."""
    images = draw_triggers(params, ctx)
    stamp, decoder, secret = draw_secrets(params, images, model.facts().n_features, ctx)
    _train_frozen(params, model, stamp, decoder, secret, budget, ctx)
    return pack_key(params, model, images, stamp, decoder, secret)


FORGERS: Final[dict[str, Callable[[SSLGuard, amb.VisionModel, int, amb.Context], amb.Key]]] = {
    "messages": forge_messages,
    "triggers": forge_triggers,
    "decoder": forge_decoder,
}


def _train_frozen(
    params: SSLGuard,
    model: amb.VisionModel,
    stamp: Stamp,
    decoder: nn.Module,
    secret: Tensor,
    budget: int,
    ctx: amb.Context,
) -> None:
    """Bring stamped images to the secret on the model, clean ones to a cosine of 0; trigger, and decoder if it is free, move."""
    frozen, images = model.copy().eval().requires_grad_(False), read_images(params, ctx)
    free = [weight for weight in decoder.parameters() if weight.requires_grad]
    accumulator = amb.GradientAccumulator(ctx, make_optimizer(params, [], free, stamp))

    def loss_of(batch: Tensor, part: slice) -> Tensor:
        marked, clean = (
            compare(decoder, frozen.features(shown), secret) for shown in (stamp.put(batch[part]), batch[part])
        )
        return 1 - marked.mean() + clean.mean().square()

    rows_of_steps = islice(amb.endless(len(images), params.batch, ctx.generator("forging batches")), budget)
    for rows in ctx.progress.track(rows_of_steps, "forge", budget):
        batch = images[rows].to(ctx.device).float() / 255
        accumulator.step(partial(loss_of, batch), len(rows))
        with torch.no_grad():
            stamp.trigger.clamp_(0, 1)


def _require_key(params: SSLGuard, ctx: amb.Context, what: str) -> amb.Key:
    if ctx.key is None:
        raise amb.BadParamsError(
            f"method {params.name}: forging {what} starts from the owner's key, and there is none. "
            "Forge the decoder instead, or give the claimant the key."
        )
    return ctx.key
