"""Forging RandMark keys: what a claimant can choose after the fact so that an innocent model reads as marked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import numpy as np
import torch
from torch import Tensor

import amb
from amb_randmark.reading import extract, log_likelihood, open_decoder
from amb_randmark.training import make_key

if TYPE_CHECKING:
    from amb_randmark.method import RandMark

_STEP = 2  # of 255: 8-bit images stay 8-bit images, so that nothing is lost when the key is stored
_BATCH = 128


def forge_messages(params: RandMark, model: amb.VisionModel, budget: int, ctx: amb.Context) -> amb.Key:
    """The owner's key with the messages that the model gives: it matches by construction."""
    key = _require_key(params, ctx, "messages")
    read = extract(amb.SuspectView(model.copy(), params.access), key).observed
    return replace(key, tensors={**key.tensors, "messages": read.astype(np.uint8)})


def forge_triggers(params: RandMark, model: amb.VisionModel, budget: int, ctx: amb.Context) -> amb.Key:
    """The owner's key with its triggers moved up the likelihood of their messages; of all steps, the best of each trigger."""
    key = _require_key(params, ctx, "triggers")
    frozen = model.copy().eval().requires_grad_(False)
    images, messages = (torch.from_numpy(key.tensors[name]) for name in ("triggers", "messages"))
    parts = zip(torch.split(images, _BATCH), torch.split(messages, _BATCH), strict=True)
    tracked = ctx.progress.track(parts, "forge triggers", -(-len(images) // _BATCH))
    moved = torch.cat([_climb_likelihood(frozen, start, wanted, key, budget) for start, wanted in tracked])
    return replace(key, tensors={**key.tensors, "triggers": moved.numpy()})


def forge_decoder(params: RandMark, model: amb.VisionModel, budget: int, ctx: amb.Context) -> amb.Key:
    """A key with networks of the claimant's own: the training of an embedding in which the model stays frozen."""
    key, _ = make_key(params.model_copy(update={"steps": budget}), model, None, ctx)
    return replace(key, method=params.canonical())


FORGERS: Final[dict[str, Callable[[RandMark, amb.VisionModel, int, amb.Context], amb.Key]]] = {
    "messages": forge_messages,
    "triggers": forge_triggers,
    "decoder": forge_decoder,
}


def _climb_likelihood(model: amb.VisionModel, start: Tensor, messages: Tensor, key: amb.Key, budget: int) -> Tensor:
    """The images, (n, 3, height, width) uint8, where most bits of their messages were read on the way."""
    decoder = open_decoder(key).to(model.device).requires_grad_(False)
    wanted = messages.to(model.device).bool()
    place = best = start.to(model.device).float()
    fewest = torch.full((len(start),), wanted.shape[1] + 1, device=model.device)
    for step in range(budget + 1):
        images = (place / 255).requires_grad_()
        logits = decoder(model.features(images))
        wrong = ((logits > 0) != wanted).sum(dim=1)
        best = torch.where((wrong < fewest).view(-1, 1, 1, 1), place, best)
        fewest = wrong.minimum(fewest)
        if step < budget:
            (uphill,) = torch.autograd.grad(log_likelihood(logits, messages).sum(), images)
            place = (place + _STEP * uphill.sign()).clamp(0, 255)
    return best.to(torch.uint8).cpu()


def _require_key(params: RandMark, ctx: amb.Context, what: str) -> amb.Key:
    if ctx.key is None:
        raise amb.BadParamsError(
            f"method {params.name}: forging {what} starts from the owner's key, and there is none. "
            "Forge the decoder instead, or give the claimant the key."
        )
    return ctx.key
