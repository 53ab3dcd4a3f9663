"""Keys that are refused: whose parts do not follow from their secret, or are not what their carriers hang on."""

from __future__ import annotations

import numpy as np

import amb
from amb_spread.secret import SECRET_BYTES


def require_sound(method: amb.Method, key: amb.Key, parts: frozenset[str] = frozenset()) -> None:
    """Raise UsageError where a key was made by another spec, or holds anything but its secret and these other parts.

    Carriers and messages are never stored: whoever may choose them claims any model. What else a key holds has to have
    the digest that its carriers were drawn with.
    """
    if key.method != method.canonical():
        raise refusal(key, f"it was made by {key.method} and cannot be read as {method.canonical()}")
    secret = key.tensors.get("secret")
    if secret is None or secret.dtype != np.uint8 or secret.shape != (SECRET_BYTES,):
        raise refusal(key, f"it has no secret of {SECRET_BYTES} bytes")
    chosen = sorted({*key.tensors} - parts - {"secret"})
    if chosen:
        raise refusal(key, f"it brings its own '{chosen[0]}', which has to follow from the secret")
    missing = sorted(parts - {*key.tensors})
    if missing:
        raise refusal(key, f"it has no '{missing[0]}'")


def require_same(key: amb.Key, what: str, held: object, found: object) -> None:
    """Raise UsageError where what a key says of something is not what is found: its carriers were drawn for another one."""
    if held != found:
        raise refusal(key, f"its carriers were drawn for other {what} than these")


def refusal(key: amb.Key, reason: str) -> amb.UsageError:
    """The error for a key that is not read."""
    return amb.UsageError(f"The key {key.digest} is refused: {reason}. Embed again to make a key that holds.")
