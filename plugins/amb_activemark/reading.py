"""Reading an ActiveMark key on a suspect: inject each message at the block, decode it from the output."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

import amb
from amb_activemark.networks import Carrier, Decoder, Encoder, LaterBlocks, tap

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
    model: amb.VisionModel, images: Tensor, messages: Tensor, encoder: Encoder, decoder: Decoder, facts: Any
) -> Tensor:
    """The decoder's answer for each image and its message, (n, bits) in 0..1."""
    model = model.eval()
    encoder, decoder = encoder.to(model.device), decoder.to(model.device)
    carrier = Carrier(facts["carrier"], facts["index"], model.backbone.n_prefix)
    later = LaterBlocks(model, facts["block"], carrier, facts["decoder_reads"])
    answers = []
    for image, message in zip(images.split(_BATCH), messages.split(_BATCH), strict=True):
        taps = tap(model, image, facts["block"], carrier)
        replaced = encoder(torch.cat([taps.carrier, message.to(model.device).float()], dim=1))
        answers.append(decoder(later(carrier.write(taps.tokens, replaced)).read))
    return torch.cat(answers).cpu()


def images_of(key: amb.Key) -> Tensor:
    """The trigger images, (n, 3, height, width) in [0, 1]."""
    return torch.from_numpy(key.tensors["triggers"]).float() / 255


def coders_of(key: amb.Key) -> tuple[Encoder, Decoder]:
    """Encoder and decoder with the key's weights."""
    facts = key.facts
    encoder = Encoder(facts["n_carrier"], facts["n_bits"], facts["encoder_hidden"], facts["squash"])
    decoder = Decoder(facts["n_read"], facts["n_bits"], facts["decoder_hidden"])
    encoder.load_state_dict(_under(key, "encoder."))
    decoder.load_state_dict(_under(key, "decoder."))
    return encoder.eval(), decoder.eval()


def _under(key: amb.Key, prefix: str) -> dict[str, Tensor]:
    return {
        name.removeprefix(prefix): torch.from_numpy(array)
        for name, array in key.tensors.items()
        if name.startswith(prefix)
    }
