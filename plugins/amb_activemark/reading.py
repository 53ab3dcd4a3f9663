"""Reading an ActiveMark key on a suspect: inject each message at the block, decode it from the output."""

from __future__ import annotations

import math
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

import amb
from amb_activemark.networks import Carrier, Decoder, Encoder, LaterBlocks, Outputs, tap

_BATCH = 128


def extract(suspect: amb.SuspectView, key: amb.Key) -> amb.Evidence:
    """Expected and observed bits, (triggers, bits)."""
    messages = torch.from_numpy(key.tensors["messages"])
    images = images_of(key)
    encoder, decoder = coders_of(key)
    observed = read_messages(suspect.model, images, messages, encoder, decoder, key.facts)
    suspect.count_queries(len(images))
    return amb.Evidence(
        expected=key.tensors["messages"].astype(np.int64),
        observed=(observed > 0.5).cpu().numpy().astype(np.int64),
        facts={"block": key.facts["block"]},
    )


@torch.no_grad()
def read_messages(
    model: amb.VisionModel, images: Tensor, messages: Tensor, encoder: Encoder, decoder: Decoder, key_facts: Any
) -> Tensor:
    """The decoder's answer for each image and its message, (n, bits) in 0..1."""
    model = model.eval()
    encoder, decoder = encoder.to(model.device), decoder.to(model.device)
    parts = zip(torch.split(images, _BATCH), torch.split(messages, _BATCH), strict=True)
    return torch.cat([decoder(carry(model, shown, message, encoder, key_facts)) for shown, message in parts]).cpu()


def carry(model: amb.VisionModel, images: Tensor, messages: Tensor, encoder: Encoder, key_facts: Any) -> Tensor:
    """What reaches the decoder of injected messages, (n, input of the decoder); gradients pass."""
    carrier = Carrier(key_facts["carrier"], key_facts["index"], model.backbone.n_prefix)
    later = LaterBlocks(model, key_facts["block"], carrier, key_facts["decoder_reads"])
    taps = tap(model, images, key_facts["block"], carrier)
    replaced = encoder(torch.cat([taps.carrier, messages.to(model.device).float()], dim=1))
    return cast(Outputs, later(carrier.write(taps.tokens, replaced))).read


def log_likelihood(logits: Tensor, messages: Tensor) -> Tensor:
    """Log-probability of each bit of the messages, (n, bits)."""
    return -F.binary_cross_entropy_with_logits(logits, messages.to(logits.device).float(), reduction="none")


def agreement(model: amb.VisionModel, key: amb.Key, n: int, drawn: torch.Generator) -> Tensor:
    """Mean log-likelihood of the bits over n triggers; each counts no less than a guess, so that none makes up for others.

    Without that bound two bits that are far wrong would weigh as much as all of them right.
    """
    encoder, decoder = frozen_coders(key, model.device)
    rows = torch.randperm(len(key.tensors["messages"]), generator=drawn)[:n]
    messages = torch.from_numpy(key.tensors["messages"])[rows]
    logits = decoder.logits(carry(model, images_of(key)[rows], messages, encoder, key.facts))
    return log_likelihood(logits, messages).clamp(min=math.log(1 / 2)).mean()


def images_of(key: amb.Key) -> Tensor:
    """The trigger images, (n, 3, height, width) in [0, 1]."""
    return torch.from_numpy(key.tensors["triggers"]).float() / 255


def coders_of(key: amb.Key) -> tuple[Encoder, Decoder]:
    """Encoder and decoder with the key's weights."""
    facts = key.facts
    encoder = Encoder(facts["n_carrier"], facts["n_bits"], facts["encoder_hidden"], facts["squash"])
    decoder = Decoder(facts["n_read"], facts["n_bits"], facts["decoder_hidden"])
    encoder.load_state_dict(_select_tensors(key, "encoder."))
    decoder.load_state_dict(_select_tensors(key, "decoder."))
    return encoder.eval(), decoder.eval()


def frozen_coders(key: amb.Key, device: torch.device) -> tuple[Encoder, Decoder]:
    """The same on a device, for gradients that pass through them."""
    encoder, decoder = coders_of(key)
    return encoder.to(device).requires_grad_(False), decoder.to(device).requires_grad_(False)


def _select_tensors(key: amb.Key, prefix: str) -> dict[str, Tensor]:
    return {
        name.removeprefix(prefix): torch.from_numpy(array)
        for name, array in key.tensors.items()
        if name.startswith(prefix)
    }
