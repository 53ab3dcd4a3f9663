"""From a secret of 256 bits to the projection and the messages of a key; and which keys are refused.

Both follow from the secret, the method's spec, the digest of the unmarked model and the key's images with their classes
(`amb.Streams`).
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

import amb

if TYPE_CHECKING:
    from amb_deepsigns.method import DeepSigns

DOMAIN: Final = "amb-deepsigns/1"
_PARTS: Final = ("images", "classes")
"""Of a key beside its secret."""


class Carriers(NamedTuple):
    """What a key reads with."""

    projection: NDArray[np.float32]  # A, (features, bits), standard normal
    messages: NDArray[np.int64]  # b, (classes, bits), 0 or 1


def open_carriers(params: DeepSigns, key: amb.Key) -> Carriers:
    """Projection and messages of a key."""
    context = (key.method, key.facts["model"], *(_digest(key.tensors[name]) for name in _PARTS))
    streams = amb.Streams(DOMAIN, key.tensors["secret"].tobytes(), context)
    signs = streams.draw_signs("messages", params.n_classes, params.n_bits)
    projection = streams.draw_normals("projection", key.facts["n_features"], params.n_bits)
    return Carriers(projection, (signs > 0).astype(np.int64))


def require_sound(params: DeepSigns, key: amb.Key) -> None:
    """Raise UsageError where a key is of another spec, or brings a part of its own that has to follow from its secret."""
    amb.require_sound(params, key, frozenset(_PARTS))
    images, classes = (key.tensors[name] for name in _PARTS)
    if images.dtype != np.uint8 or classes.shape != images.shape[:1]:
        raise amb.refuse_key(key, "its images are not 8-bit ones with a class each")
    if not np.array_equal(np.unique(classes), np.arange(params.n_classes)):
        raise amb.refuse_key(key, f"its images are not of the classes 0 to {params.n_classes - 1}")


def _digest(array: NDArray[np.generic]) -> str:
    return hashlib.sha256(f"{array.dtype} {array.shape}".encode() + np.ascontiguousarray(array).tobytes()).hexdigest()
