"""From a secret of 256 bits to carriers and messages: SHAKE-256 streams, one for each purpose.

What a stream depends on is all of: a domain, the method's spec, the digests of the unmarked model and of the images, and
the purpose. Whoever chose the model or the images after the carriers could make bits come out; here that changes every
carrier, so all that a forger can do is to draw again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch

    import amb

DOMAIN: Final = "amb-spread/1"
SECRET_BYTES: Final = 32

Floats = NDArray[np.float32]


def open_secret(ctx: amb.Context) -> NDArray[np.uint8]:
    """256 bits, (32,) bytes, as hard to guess as the context's axes: an owner's are random, a benchmark's are public."""
    return np.frombuffer(ctx.draw_bytes("secret", SECRET_BYTES), dtype=np.uint8)


def draw_secret(generator: torch.Generator) -> NDArray[np.uint8]:
    """Another secret, for tests of the null; as good as its generator."""
    import torch

    drawn: NDArray[np.uint8] = torch.randint(256, (SECRET_BYTES,), generator=generator, dtype=torch.uint8).numpy()
    return drawn


class Streams:
    """The streams of one key."""

    def __init__(self, secret: bytes, context: Sequence[str]) -> None:
        if len(secret) != SECRET_BYTES:
            raise ValueError(f"a secret has {SECRET_BYTES} bytes, not {len(secret)}")
        parts = [DOMAIN.encode(), secret, *(part.encode() for part in context)]
        self._prefix = b"".join(len(part).to_bytes(8, "big") + part for part in parts)

    def draw_bytes(self, purpose: str, n: int) -> bytes:
        """`n` bytes for a purpose; the first of more are the same."""
        return hashlib.shake_256(self._prefix + purpose.encode()).digest(n)

    def draw_signs(self, purpose: str, *shape: int) -> NDArray[np.int8]:
        """Fair signs, -1 or 1."""
        n = int(np.prod(shape))
        bits = np.unpackbits(np.frombuffer(self.draw_bytes(purpose, -(-n // 8)), dtype=np.uint8))[:n]
        return (2 * bits.astype(np.int8) - 1).reshape(shape)

    def draw_normals(self, purpose: str, *shape: int) -> Floats:
        """Standard normal draws, symmetric about 0 to the last bit: quantiles of 32-bit uniform ones."""
        from scipy.special import ndtri

        n = int(np.prod(shape))
        whole = np.frombuffer(self.draw_bytes(purpose, 4 * n), dtype=">u4").astype(np.float64)
        drawn: Floats = ndtri((whole + 0.5) / 2.0**32).astype(np.float32).reshape(shape)
        return drawn

    def draw_directions(self, purpose: str, n: int, dim: int) -> Floats:
        """Random unit vectors, (n, dim)."""
        drawn = self.draw_normals(purpose, n, dim)
        directions: Floats = drawn / np.linalg.norm(drawn, axis=1, keepdims=True)
        return directions
