"""The folder of a key: `key.safetensors`, or `key.sealed` under a passphrase, and the `salt` that its commitment was made with."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

from amb.errors import MissingError
from amb.ownership.commitment import SALT_BYTES
from amb.ownership.files import SECRET, make_private_folder, read_bytes, write_new
from amb.ownership.sealing import seal, unseal

KEY: Final = "key.safetensors"
SEALED: Final = "key.sealed"
SALT: Final = "salt"
MOST_BYTES: Final = (1 << 31) - (1 << 10)
"""Of a key; AES-GCM seals no more at once."""


def read_key_folder(folder: Path, ask: Callable[[], str]) -> tuple[bytes, bytes]:
    """The salt, and the key's bytes; `ask` is called for the passphrase where it is sealed. Raises AmbError."""
    salt = read_bytes(folder / SALT, 1 << 10, "The key's salt")
    if (folder / KEY).exists():
        return salt, read_bytes(folder / KEY, MOST_BYTES, "The key")
    if (folder / SEALED).exists():
        sealed = read_bytes(folder / SEALED, MOST_BYTES, "The sealed key")
        return salt, unseal(sealed, ask())
    raise MissingError(f"{folder} holds neither {KEY} nor {SEALED}. Name the folder of a key.")


def write_key_folder(folder: Path, key: bytes, passphrase: str | None = None) -> bytes:
    """Keep a key, with a new salt, where only its owner may read it; the salt. Raises UsageError where one is, StoreError."""
    salt = os.urandom(SALT_BYTES)
    make_private_folder(folder)
    write_new(folder / SALT, salt, SECRET)
    if passphrase is None:
        write_new(folder / KEY, key, SECRET)
    else:
        write_new(folder / SEALED, seal(key, passphrase), SECRET)
    return salt
