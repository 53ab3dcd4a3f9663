"""Who signs: an Ed25519 key of a person or a firm, kept in the user's folder of settings, sealed where a passphrase is given."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

from amb.errors import BadParamsError, MissingError, UsageError
from amb.ownership.files import SECRET, make_private_folder, read_bytes, write_new
from amb.ownership.sealing import seal, unseal
from amb.runtime.paths import config_root

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

PRIVATE: Final = "private.pem"
SEALED: Final = "private.sealed"
PUBLIC: Final = "public.pem"
MOST_BYTES: Final = 1 << 16


def default_folder() -> Path:
    """Where one's identity lies unless a folder is named."""
    return config_root() / "identity"


def new_identity(folder: Path, passphrase: str | None = None) -> str:
    """Make an identity in a folder that holds none; its key id. Raises UsageError, StoreError."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    refuse_taken(folder)
    key = Ed25519PrivateKey.generate()
    private = _encode_private(key)
    make_private_folder(folder)
    if passphrase is None:
        write_new(folder / PRIVATE, private, SECRET)
    else:
        write_new(folder / SEALED, seal(private, passphrase), SECRET)
    write_new(folder / PUBLIC, encode_public(key.public_key()))
    return key_id(key.public_key())


def refuse_taken(folder: Path) -> None:
    """Refuse a folder that holds an identity. Raises UsageError."""
    if taken := [name for name in (PRIVATE, SEALED, PUBLIC) if (folder / name).exists()]:
        raise UsageError(
            f"{folder} holds an identity already ({taken[0]}) and is not overwritten. Name another folder."
        )


def require_identity(folder: Path) -> None:
    """Refuse a folder without a public key. Raises MissingError."""
    if not (folder / PUBLIC).exists():
        raise MissingError(f"There is no identity in {folder}. Make one: amb identity new")


def load_identity(folder: Path, ask: Callable[[], str]) -> Ed25519PrivateKey:
    """The private key of a folder; `ask` is called for the passphrase where it is sealed. Raises AmbError."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(_read_private(folder, ask), password=None)
    except (ValueError, TypeError):
        raise BadParamsError(f"The private key in {folder} is damaged, or no PKCS8 PEM.") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise BadParamsError(f"The private key in {folder} is not of Ed25519. `amb identity new` makes one.")
    return key


def load_public(path: Path) -> Ed25519PublicKey:
    """A public key from a PEM file, or from an identity's folder. Raises AmbError."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    file = path / PUBLIC if path.is_dir() else path
    try:
        key = load_pem_public_key(read_bytes(file, MOST_BYTES, "The public key"))
    except (ValueError, UnsupportedAlgorithm):
        raise BadParamsError(f"{file} holds no public key as PEM. `amb identity show` prints one.") from None
    if not isinstance(key, Ed25519PublicKey):
        raise BadParamsError(f"The public key {file} is not of Ed25519. `amb identity show` prints one.")
    return key


def key_id(key: Ed25519PublicKey) -> str:
    """SHA-256 of the 32 bytes of a public key, as 64 hex digits."""
    return hashlib.sha256(key.public_bytes_raw()).hexdigest()


def encode_public(key: Ed25519PublicKey) -> bytes:
    """A public key as PEM."""
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def refuse_shared(path: Path) -> None:
    """Refuse a secret file that others of this machine may read. Raises UsageError."""
    if os.name == "posix" and stat.S_IMODE(path.stat().st_mode) & 0o077:
        raise UsageError(f"{path} may be read by others. Run: chmod 600 {path}")


def _encode_private(key: Ed25519PrivateKey) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _read_private(folder: Path, ask: Callable[[], str]) -> bytes:
    for name in (PRIVATE, SEALED):
        if (path := folder / name).is_file():
            refuse_shared(path)
            data = read_bytes(path, MOST_BYTES, "The private key")
            return unseal(data, ask()) if name == SEALED else data
    raise MissingError(f"There is no identity in {folder}. Make one: amb identity new")
