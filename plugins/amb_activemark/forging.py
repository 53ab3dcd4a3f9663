"""Forging ActiveMark keys: what a claimant can choose after the fact so that an innocent model reads as marked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import numpy as np
import torch
from torch import Tensor

import amb
from amb_activemark.networks import Decoder, Encoder
from amb_activemark.reading import carry, coders_of, frozen_coders, images_of, log_likelihood, read_messages
from amb_activemark.training import make_key

if TYPE_CHECKING:
    from amb_activemark.method import ActiveMark

_STEP = 2  # of 255: 8-bit images stay 8-bit images, so that nothing is lost when the key is stored
_BATCH = 128


def forge_messages(params: ActiveMark, model: amb.VisionModel, budget: int, ctx: amb.Context) -> amb.Key:
    """The owner's key with other messages: of `budget` tries for each trigger, the one that is read with fewest wrong bits.

    A try follows what the decoder read of the one before, m <- D(inject(m)), as long as that lessens the wrong bits;
    then it starts anew from random bits.
    """
    key = _require_key(params, ctx, "messages")
    coders, images, drawn = coders_of(key), images_of(key), ctx.generator("forged messages")
    shape = tuple(key.tensors["messages"].shape)
    tried = torch.randint(0, 2, shape, generator=drawn, dtype=torch.uint8)
    best, fewest = tried, torch.full((shape[0],), shape[1] + 1)
    before = fewest
    for _ in ctx.progress.track(range(budget), "forge messages", budget):
        answered = (read_messages(model, images, tried, *coders, key.facts) > 0.5).to(torch.uint8)
        wrong = (answered != tried).sum(dim=1)
        best, fewest = torch.where((wrong < fewest)[:, None], tried, best), wrong.minimum(fewest)
        fresh = torch.randint(0, 2, shape, generator=drawn, dtype=torch.uint8)
        lessens = wrong < before
        tried = torch.where(lessens[:, None], answered, fresh)
        before = torch.where(lessens, wrong, shape[1] + 1)
    return _replace_tensors(key, messages=best)


def forge_triggers(params: ActiveMark, model: amb.VisionModel, budget: int, ctx: amb.Context) -> amb.Key:
    """The owner's key with its triggers moved up the likelihood of their messages; of all steps, the best of each trigger."""
    key = _require_key(params, ctx, "triggers")
    frozen = model.copy().eval().requires_grad_(False)
    encoder, decoder = frozen_coders(key, model.device)
    triggers, messages = (torch.from_numpy(key.tensors[name]) for name in ("triggers", "messages"))
    parts = zip(torch.split(triggers, _BATCH), torch.split(messages, _BATCH), strict=True)
    total = -(-len(triggers) // _BATCH)
    tracked = ctx.progress.track(parts, "forge triggers", total)
    moved = [_climb_likelihood(frozen, start, message, encoder, decoder, key, budget) for start, message in tracked]
    return _replace_tensors(key, triggers=torch.cat(moved))


def forge_decoder(params: ActiveMark, model: amb.VisionModel, budget: int, ctx: amb.Context) -> amb.Key:
    """A key with coders of the claimant's own: the training of an embedding in which the model's blocks stay frozen."""
    alone = params.model_copy(update={"steps": budget, "contrast": 0.0, "prune_noise": 0.0})  # both are of the blocks
    key, _ = make_key(alone, model, None, ctx)
    return replace(key, method=params.canonical())


FORGERS: Final[dict[str, Callable[[ActiveMark, amb.VisionModel, int, amb.Context], amb.Key]]] = {
    "messages": forge_messages,
    "triggers": forge_triggers,
    "decoder": forge_decoder,
}


def _climb_likelihood(
    model: amb.VisionModel,
    triggers: Tensor,
    messages: Tensor,
    encoder: Encoder,
    decoder: Decoder,
    key: amb.Key,
    budget: int,
) -> Tensor:
    """The triggers, (n, 3, height, width) uint8, where most bits of their messages were read on the way."""
    wanted = messages.to(model.device).bool()
    place = best = triggers.to(model.device).float()
    fewest = torch.full((len(triggers),), wanted.shape[1] + 1, device=model.device)
    for step in range(budget + 1):
        images = (place / 255).requires_grad_()
        read = carry(model, images, messages, encoder, key.facts)
        wrong = ((decoder(read) > 0.5) != wanted).sum(dim=1)
        best = torch.where((wrong < fewest).view(-1, 1, 1, 1), place, best)
        fewest = wrong.minimum(fewest)
        if step < budget:
            (uphill,) = torch.autograd.grad(log_likelihood(decoder.logits(read), messages).sum(), images)
            place = (place + _STEP * uphill.sign()).clamp(0, 255)
    return best.to(torch.uint8).cpu()


def _require_key(params: ActiveMark, ctx: amb.Context, what: str) -> amb.Key:
    if ctx.key is None:
        raise amb.BadParamsError(
            f"method {params.name}: forging {what} starts from the owner's key, and there is none. "
            "Forge the decoder instead, or give the claimant the key."
        )
    return ctx.key


def _replace_tensors(key: amb.Key, **changed: Tensor) -> amb.Key:
    arrays: dict[str, np.ndarray] = {name: tensor.numpy() for name, tensor in changed.items()}
    return replace(key, tensors={**key.tensors, **arrays})
