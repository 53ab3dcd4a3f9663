"""From a secret of 256 bits to the projection and the messages of a key; and which keys are refused.

Both are SHAKE-256 streams of the secret, the method's spec, the digest of the unmarked model and the key's images with their
classes. Whoever chose any of these after the messages could make bits come out; here that changes every bit, so all that a
forger can do is to draw again.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

import amb

if TYPE_CHECKING:
    import torch

    from amb_deepsigns.method import DeepSigns

DOMAIN: Final = "amb-deepsigns/1"
SECRET_BYTES: Final = 32
PARTS: Final = frozenset({"secret", "images", "classes"})


class Carriers(NamedTuple):
    """What a key reads with."""

    projection: NDArray[np.float32]  # A, (features, bits), standard normal
    messages: NDArray[np.int64]  # b, (classes, bits), 0 or 1


def open_secret(ctx: amb.Context) -> NDArray[np.uint8]:
    """256 bits, (32,) bytes, as hard to guess as the context's axes: an owner's are random, a benchmark's are public."""
    return np.frombuffer(ctx.draw_bytes("secret", SECRET_BYTES), dtype=np.uint8)


def redraw(key: amb.Key, generator: torch.Generator) -> amb.Key:
    """The same key with another secret; as good as its generator."""
    import torch

    drawn = torch.randint(256, (SECRET_BYTES,), generator=generator, dtype=torch.uint8).numpy()
    return replace(key, tensors={**key.tensors, "secret": drawn})


def open_carriers(params: DeepSigns, key: amb.Key) -> Carriers:
    """Projection and messages of a key."""
    images, classes = (_digest(key.tensors[name]) for name in ("images", "classes"))
    parts = [DOMAIN.encode(), key.tensors["secret"].tobytes(), key.method.encode(), key.facts["model"].encode()]
    prefix = b"".join(len(part).to_bytes(8, "big") + part for part in (*parts, images, classes))
    n_features, n_bits = key.facts["n_features"], params.n_classes * params.n_bits
    stream = np.frombuffer(_draw(prefix, "messages", -(-n_bits // 8)), dtype=np.uint8)
    messages = np.unpackbits(stream)[:n_bits].astype(np.int64).reshape(params.n_classes, params.n_bits)
    return Carriers(_draw_normals(prefix, "projection", n_features, params.n_bits), messages)


def require_sound(params: DeepSigns, key: amb.Key) -> None:
    """Raise UsageError where a key is of another spec, or brings a part of its own that has to follow from its secret."""
    if key.method != params.canonical():
        raise _refuse(key, f"it was made by {key.method} and cannot be read as {params.canonical()}")
    if set(key.tensors) != PARTS:
        other = min(PARTS.symmetric_difference(key.tensors))
        raise _refuse(key, f"it has no '{other}'" if other in PARTS else f"it brings its own '{other}'")
    secret, images, classes = (key.tensors[name] for name in ("secret", "images", "classes"))
    if secret.dtype != np.uint8 or secret.shape != (SECRET_BYTES,):
        raise _refuse(key, f"it has no secret of {SECRET_BYTES} bytes")
    if images.dtype != np.uint8 or classes.shape != images.shape[:1]:
        raise _refuse(key, "its images are not 8-bit ones with a class each")
    if not np.array_equal(np.unique(classes), np.arange(params.n_classes)):
        raise _refuse(key, f"its images are not of the classes 0 to {params.n_classes - 1}")


def _refuse(key: amb.Key, reason: str) -> amb.UsageError:
    return amb.UsageError(f"The key {key.digest} is refused: {reason}. Embed again to make a key that holds.")


def _draw(prefix: bytes, purpose: str, n: int) -> bytes:
    return hashlib.shake_256(prefix + purpose.encode()).digest(n)


def _draw_normals(prefix: bytes, purpose: str, *shape: int) -> NDArray[np.float32]:
    """Standard normal draws: quantiles of 32-bit uniform ones."""
    from scipy.special import ndtri

    whole = np.frombuffer(_draw(prefix, purpose, 4 * int(np.prod(shape))), dtype=">u4").astype(np.float64)
    drawn: NDArray[np.float32] = ndtri((whole + 0.5) / 2.0**32).astype(np.float32).reshape(shape)
    return drawn


def _digest(array: NDArray[np.generic]) -> bytes:
    return hashlib.sha256(f"{array.dtype} {array.shape}".encode() + np.ascontiguousarray(array).tobytes()).digest()
