"""SSLGuard's stamp and decoder, and reading a key: stamp its images, embed them on the suspect, decode, compare."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import amb

if TYPE_CHECKING:
    from amb_sslguard.method import SSLGuard

_WIDTHS: Final = (512, 256)
"""Hidden layers of the decoder, as in the paper."""
_READ: Final = 256
"""Images that are read at once."""
_SOFTNESS: Final = 0.1
"""How far from the threshold a cosine is no longer in doubt, for the likelihood that `agreement` takes."""


class Decoder(nn.Sequential):
    """An embedding, (n, features), to a vector that is compared with the secret, (n, secret)."""

    def __init__(self, n_features: int, n_secret: int) -> None:
        first, second = _WIDTHS
        super().__init__(
            nn.Linear(n_features, first), nn.ReLU(), nn.Linear(first, second), nn.ReLU(), nn.Linear(second, n_secret)
        )


class Stamp(NamedTuple):
    """What is put on an image."""

    mask: Tensor  # (3, height, width): 1 where the trigger stands, else 0
    trigger: Tensor  # (3, height, width)

    def put(self, images: Tensor) -> Tensor:
        """clip((1 - M) x + M T) of images, (n, 3, height, width) in [0, 1]. Raises UsageError where the sizes differ."""
        if images.shape[1:] != self.mask.shape:
            theirs, ours = ("x".join(map(str, shape)) for shape in (images.shape[1:], self.mask.shape))
            raise amb.UsageError(
                f"SSLGuard's trigger is {ours}, the images are {theirs}. Bring them to the trigger's size."
            )
        return ((1 - self.mask) * images + self.mask * self.trigger).clamp(0, 1)


def extract(params: SSLGuard, suspect: amb.SuspectView, key: amb.Key) -> amb.Evidence:
    """Whether each of the key's images, stamped, decodes to the secret on the suspect."""
    return extract_on(params, suspect, key, open_images(key))


def extract_on(params: SSLGuard, suspect: amb.SuspectView, key: amb.Key, images: Tensor) -> amb.Evidence:
    """The same of any images, (n, 3, height, width) in [0, 1]: the stamp goes on all alike."""
    stamp, decoder, secret = open_stamp(key), open_decoder(key), torch.from_numpy(key.tensors["secret"])
    answers = torch.cat([suspect.features(part).float().cpu() for part in torch.split(stamp.put(images), _READ)])
    with torch.no_grad():
        cosines = compare(decoder, answers, secret)
    detected = (cosines > params.threshold).numpy().astype(np.uint8)[:, None]
    return amb.Evidence(np.ones_like(detected), detected, facts={"mean_cosine": round(cosines.mean().item(), 4)})


def compare(decoder: nn.Module, features: Tensor, secret: Tensor) -> Tensor:
    """Cosine of each decoded embedding with the secret, (n,) in -1..1."""
    return F.cosine_similarity(decoder(features), secret[None])


def agreement(params: SSLGuard, model: amb.VisionModel, key: amb.Key, n: int, drawn: torch.Generator) -> Tensor:
    """Mean log-likelihood of detection over n images, log sigmoid((cosine - threshold) / 0.1), each floored at chance.

    Chance, log 1/2, is where the cosine is the threshold: below it an image is not detected and has nothing to lose.
    """
    images = open_images(key)
    images = images[torch.randperm(len(images), generator=drawn)[:n]]
    stamp, decoder = open_stamp(key), open_decoder(key).to(model.device).requires_grad_(False)
    secret = torch.from_numpy(key.tensors["secret"]).to(model.device)
    cosines = compare(decoder, model.features(stamp.put(images)), secret)
    return F.logsigmoid((cosines - params.threshold) / _SOFTNESS).clamp(min=-math.log(2)).mean()


def pack_key(
    params: SSLGuard, owner: amb.VisionModel, images: Tensor, stamp: Stamp, decoder: Decoder, secret: Tensor
) -> amb.Key:
    """The key; images, (n, 3, height, width) uint8, and trigger are of 8 bits, so that a service sees them as they are."""
    tensors = {
        "images": images,
        "mask": stamp.mask.to(torch.uint8),
        "trigger": to_bytes(stamp.trigger),
        "secret": secret,
        **{f"decoder.{name}": weight for name, weight in decoder.state_dict().items()},
    }
    facts = {"n_features": decoder[0].in_features, "n_secret": len(secret)}
    arrays = {name: tensor.detach().cpu().numpy() for name, tensor in tensors.items()}
    return amb.Key(params.canonical(), owner.digest(), arrays, facts)


def to_bytes(images: Tensor) -> Tensor:
    """Values in [0, 1] as uint8."""
    return images.detach().mul(255).round().clamp(0, 255).to(torch.uint8)


def open_images(key: amb.Key) -> Tensor:
    """The images that are stamped, (n, 3, height, width) in [0, 1]."""
    return torch.from_numpy(key.tensors["images"]).float() / 255


def open_stamp(key: amb.Key) -> Stamp:
    """Mask and trigger of a key."""
    mask, trigger = (torch.from_numpy(key.tensors[name]).float() for name in ("mask", "trigger"))
    return Stamp(mask, trigger / 255)


def open_decoder(key: amb.Key) -> Decoder:
    """The decoder with the key's weights."""
    decoder = Decoder(key.facts["n_features"], key.facts["n_secret"])
    prefix = "decoder."
    weights = {name.removeprefix(prefix): array for name, array in key.tensors.items() if name.startswith(prefix)}
    decoder.load_state_dict({name: torch.from_numpy(array) for name, array in weights.items()})
    return decoder.eval()
