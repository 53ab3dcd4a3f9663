"""Keys that follow from a secret of 256 bits: SHAKE-256 streams, one for each purpose, and the refusal of any other key.

What a stream depends on is all of: a domain, the secret, whatever context the method names (its spec, the digests of the
unmarked model and of the images), and the purpose. Whoever chose the model or the images after the carriers could make
bits come out; here that changes every carrier, so all that a forger can do is to draw again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from amb.errors import UsageError

if TYPE_CHECKING:
    import torch

    from amb.api.context import Context
    from amb.api.interfaces import Method
    from amb.api.records import Key, KeyAudit
    from amb.api.vision import VisionModel

SECRET_BYTES: Final = 32

Floats = NDArray[np.float32]


def open_secret(ctx: Context) -> NDArray[np.uint8]:
    """256 bits, (32,) bytes, as hard to guess as the context's axes: an owner's are random, a benchmark's are public."""
    return np.frombuffer(ctx.draw_bytes("secret", SECRET_BYTES), dtype=np.uint8)


def draw_secret(generator: torch.Generator) -> NDArray[np.uint8]:
    """Another secret, for tests of the null; as good as its generator."""
    import torch

    drawn: NDArray[np.uint8] = torch.randint(256, (SECRET_BYTES,), generator=generator, dtype=torch.uint8).numpy()
    return drawn


class Streams:
    """The streams of one key. Purposes and shapes are the method's; the same purpose gives the same draws."""

    def __init__(self, domain: str, secret: bytes, context: Sequence[str]) -> None:
        """`domain` names the method and the version of its draws. Raises ValueError for a secret of another length."""
        if len(secret) != SECRET_BYTES:
            raise ValueError(f"a secret has {SECRET_BYTES} bytes, not {len(secret)}")
        parts = [domain.encode(), secret, *(part.encode() for part in context)]
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


def require_sound(method: Method, key: Key, parts: frozenset[str] = frozenset()) -> None:
    """Raise UsageError where a key was made by another spec, or holds anything but its secret and these other parts.

    Carriers and messages are never stored: whoever may choose them claims any model. What else a key holds has to have
    the digest that its carriers were drawn with.
    """
    if key.method != method.canonical():
        raise refuse_key(key, f"it was made by {key.method} and cannot be read as {method.canonical()}")
    secret = key.tensors.get("secret")
    if secret is None or secret.dtype != np.uint8 or secret.shape != (SECRET_BYTES,):
        raise refuse_key(key, f"it has no secret of {SECRET_BYTES} bytes")
    chosen = sorted({*key.tensors} - parts - {"secret"})
    if chosen:
        raise refuse_key(key, f"it brings its own '{chosen[0]}', which has to follow from the secret")
    missing = sorted(parts - {*key.tensors})
    if missing:
        raise refuse_key(key, f"it has no '{missing[0]}'")


def audit_secret(method: Method, key: Key, unmarked: VisionModel | None, follows: str) -> KeyAudit:
    """What `Method.audit_key` says of a key that holds nothing but its secret: `follows` names what is made of it."""
    from amb.api.records import KeyAudit

    try:
        require_sound(method, key)
    except UsageError as error:
        return KeyAudit(wrong=(str(error),))
    recomputed = (f"{follows}, from the secret",)
    if unmarked is None:
        return KeyAudit(recomputed, ("the unmarked model to which they are bound",))
    if key.facts.get("model") != unmarked.full_digest():
        return KeyAudit(recomputed, (), ("the unmarked model is not the one to which they are bound",))
    return KeyAudit((*recomputed, "the unmarked model, by its digest"))


def require_same(key: Key, what: str, held: object, found: object) -> None:
    """Raise UsageError where what a key says of something is not what is found: its carriers were drawn for another one."""
    if held != found:
        raise refuse_key(key, f"its carriers were drawn for other {what} than these")


def refuse_key(key: Key, reason: str) -> UsageError:
    """The error for a key that is not read."""
    return UsageError(f"The key {key.digest} is refused: {reason}. Embed again to make a key that holds.")
