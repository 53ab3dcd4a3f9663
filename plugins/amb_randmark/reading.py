"""RandMark's two networks, and reading a key: embed its written images on the suspect, decode the bits."""

from __future__ import annotations

import math
from typing import Final

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import amb

GRID: Final = 8
"""Side of the image that the encoder network sees, and of the pattern that it adds."""
_HIDDEN: Final = 256
_READ: Final = 256
"""Images that are read at once."""


class Writer(nn.Module):
    """The encoder network: an image and a message to the image with the message in it."""

    def __init__(self, n_bits: int, amplitude: float) -> None:
        super().__init__()
        n_values = 3 * GRID**2
        self.amplitude = amplitude
        self.network = nn.Sequential(
            nn.Linear(n_values + n_bits, _HIDDEN), nn.ReLU(), nn.Linear(_HIDDEN, n_values), nn.Tanh()
        )

    def forward(self, images: Tensor, messages: Tensor) -> Tensor:
        """Images (n, 3, height, width) in [0, 1], messages (n, bits) of 0 and 1."""
        seen = F.interpolate(images, size=(GRID, GRID), mode="bilinear", antialias=True).flatten(1)
        pattern = self.network(torch.cat([seen, 2 * messages - 1], dim=1)).view(-1, 3, GRID, GRID)
        spread = F.interpolate(pattern, size=images.shape[-2:], mode="bilinear", align_corners=False)
        return (images + self.amplitude * spread).clamp(0, 1)


class Decoder(nn.Sequential):
    """An embedding, (n, features), to the logits of the bits, (n, bits)."""

    def __init__(self, n_features: int, n_bits: int) -> None:
        super().__init__(nn.Linear(n_features, _HIDDEN), nn.ReLU(), nn.Linear(_HIDDEN, n_bits))


def extract(suspect: amb.SuspectView, key: amb.Key) -> amb.Evidence:
    """Expected and observed bits, (triggers, bits)."""
    decoder, images = open_decoder(key), open_images(key)
    answers = torch.cat([suspect.features(part).float().cpu() for part in torch.split(images, _READ)])
    with torch.no_grad():
        observed = (decoder(answers) > 0).numpy().astype(np.uint8)
    return amb.Evidence(key.tensors["messages"].astype(np.uint8), observed)


def log_likelihood(logits: Tensor, messages: Tensor) -> Tensor:
    """Log-probability of each bit of the messages, (n, bits)."""
    return -F.binary_cross_entropy_with_logits(logits, messages.to(logits.device).float(), reduction="none")


def agreement(model: amb.VisionModel, key: amb.Key, n: int, drawn: torch.Generator) -> Tensor:
    """Mean log-likelihood of the bits of n triggers, each floored at chance, so that none makes up for others."""
    decoder = open_decoder(key).to(model.device).requires_grad_(False)
    rows = torch.randperm(len(key.tensors["messages"]), generator=drawn)[:n]
    messages = torch.from_numpy(key.tensors["messages"])[rows]
    logits = decoder(model.features(open_images(key)[rows]))
    return log_likelihood(logits, messages).clamp(min=math.log(1 / 2)).mean()


def pack_key(params: amb.Method, owner: amb.VisionModel, images: Tensor, messages: Tensor, decoder: Decoder) -> amb.Key:
    """The key: written images, (n, 3, height, width) uint8, their messages, (n, bits) uint8, and the decoder network."""
    weights = {f"decoder.{name}": weight for name, weight in decoder.state_dict().items()}
    tensors = {"triggers": images, "messages": messages, **weights}
    facts = {"n_features": decoder[0].in_features, "n_bits": messages.shape[1]}
    arrays = {name: tensor.detach().cpu().numpy() for name, tensor in tensors.items()}
    return amb.Key(params.canonical(), owner.digest(), arrays, facts)


def to_bytes(images: Tensor) -> Tensor:
    """Values in [0, 1] as uint8."""
    return images.detach().mul(255).round().to(torch.uint8)


def open_images(key: amb.Key) -> Tensor:
    """The written images, (n, 3, height, width) in [0, 1]."""
    return torch.from_numpy(key.tensors["triggers"]).float() / 255


def open_decoder(key: amb.Key) -> Decoder:
    """The decoder network with the key's weights."""
    decoder = Decoder(key.facts["n_features"], key.facts["n_bits"])
    prefix = "decoder."
    weights = {name.removeprefix(prefix): array for name, array in key.tensors.items() if name.startswith(prefix)}
    decoder.load_state_dict({name: torch.from_numpy(array) for name, array in weights.items()})
    return decoder.eval()
