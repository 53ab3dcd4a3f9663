"""Canonical JSON, the one spelling of a value that digests are made of: sorted keys, no spaces, UTF-8, no NaN."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from amb.errors import BadParamsError


def encode_canonical(value: Any) -> bytes:
    """A value as canonical JSON. Raises BadParamsError for what JSON does not know."""
    try:
        text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
        return text.encode("utf-8")
    except (TypeError, ValueError, RecursionError) as error:  # UnicodeEncodeError of half a character is a ValueError
        raise BadParamsError(f"This value has no canonical JSON: {error}. Give plain, finite values.") from None


def hash_canonical(value: Any) -> str:
    """SHA-256 of a value's canonical JSON, as 64 hex digits. Raises BadParamsError."""
    return hash_bytes(encode_canonical(value))


def hash_bytes(data: bytes) -> str:
    """SHA-256 as 64 hex digits."""
    return hashlib.sha256(data).hexdigest()
