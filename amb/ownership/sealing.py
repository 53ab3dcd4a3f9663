"""Secrets under a passphrase: scrypt makes the key, AES-256-GCM seals, and the header says how, within bounds.

A sealed file is a header and what AES-GCM gives; the header is authenticated with it:

    8 bytes   AMBSEAL1, the form's name and version
    1 byte    log2 of scrypt's n
    2 bytes   r, 2 bytes p, most significant byte first
    16 bytes  salt, 12 bytes nonce
"""

from __future__ import annotations

import getpass
import os
import struct
import unicodedata
import warnings
from typing import Final

from amb.errors import AmbError, OutOfMemoryError, UsageError

MAGIC: Final = b"AMBSEAL1"
LOG_N, R, P = 17, 8, 1
"""What scrypt takes: 128 MiB, about half a second."""
MOST_MEMORY: Final = 1 << 30
"""Bytes that a stranger's header may make scrypt take, which are 128 n r."""
MOST_P: Final = 16
LONGEST_PASSPHRASE: Final = 1024
"""Bytes."""
_HEADER: Final = struct.Struct(">8sBHH16s12s")
_TAG: Final = 16


def seal(data: bytes, passphrase: str) -> bytes:
    """Data that only the passphrase opens again. Raises UsageError for an empty passphrase."""
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    salt, nonce = os.urandom(16), os.urandom(12)
    header = _HEADER.pack(MAGIC, LOG_N, R, P, salt, nonce)
    key = _derive_key(passphrase, salt, LOG_N, R, P)
    return header + AESGCM(key).encrypt(nonce, data, header)


def unseal(sealed: bytes, passphrase: str) -> bytes:
    """What was sealed. Raises AmbError where the passphrase is another, or the file was changed or is none."""
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    header = sealed[: _HEADER.size]
    log_n, r, p, salt, nonce = _read_header(sealed)
    key = _derive_key(passphrase, salt, log_n, r, p)
    try:
        return AESGCM(key).decrypt(nonce, sealed[_HEADER.size :], header)
    except InvalidTag:
        raise AmbError("The seal does not open: the passphrase is another, or the file was changed.") from None


def is_sealed(data: bytes) -> bool:
    """Whether data begins as a sealed file does."""
    return data.startswith(MAGIC)


def ask_passphrase(fd: int | None, confirm: bool) -> str:
    """A passphrase from a file descriptor, or typed unseen; never from arguments or variables. Raises UsageError."""
    if fd is not None:
        return _read_passphrase(fd)
    first = _type_passphrase("Passphrase: ")
    if confirm and _type_passphrase("Once more: ") != first:
        raise UsageError("The two passphrases differ. Start again.")
    return first


def _read_header(sealed: bytes) -> tuple[int, int, int, bytes, bytes]:
    if not is_sealed(sealed) or len(sealed) < _HEADER.size + _TAG:
        raise AmbError(f"This is no sealed file: it does not begin with {MAGIC.decode()}, or it is cut off.")
    _, log_n, r, p, salt, nonce = _HEADER.unpack(sealed[: _HEADER.size])
    if not (1 <= log_n <= 20 and r >= 1 and 1 <= p <= MOST_P and (128 * r << log_n) <= MOST_MEMORY):
        raise AmbError(f"The seal is refused: n = 2^{log_n}, r = {r}, p = {p} are out of bounds. Ask for another file.")
    return log_n, r, p, salt, nonce


def _derive_key(passphrase: str, salt: bytes, log_n: int, r: int, p: int) -> bytes:
    from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

    secret = _encode(passphrase)
    try:
        return Scrypt(salt=salt, length=32, n=1 << log_n, r=r, p=p).derive(secret)
    except MemoryError:
        need = 128 * r * (1 << log_n) >> 20
        raise OutOfMemoryError(f"A seal takes {need} MiB of memory, which are not there. Close something.") from None


def _encode(passphrase: str) -> bytes:
    """The same bytes for the same letters, however a keyboard composes them."""
    try:
        secret = unicodedata.normalize("NFC", passphrase).encode("utf-8")
    except UnicodeEncodeError:
        raise UsageError("The passphrase holds half a character. Type another.") from None
    if not 0 < len(secret) <= LONGEST_PASSPHRASE:
        raise UsageError(f"A passphrase has 1 to {LONGEST_PASSPHRASE:,} bytes, and this one {len(secret):,}.")
    return secret


def _read_passphrase(fd: int) -> str:
    """The first line that a descriptor gives."""
    try:
        with os.fdopen(fd, "rb", closefd=False) as file:
            line = file.readline(LONGEST_PASSPHRASE + 2)
    except OSError as error:
        raise UsageError(
            f"No passphrase can be read from descriptor {fd}: {error.strerror}. Give an open one."
        ) from None
    try:
        return line.removesuffix(b"\n").removesuffix(b"\r").decode("utf-8")
    except UnicodeDecodeError:
        raise UsageError(f"No passphrase can be read from descriptor {fd}: it is not UTF-8. Give another.") from None


def _type_passphrase(prompt: str) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("error", getpass.GetPassWarning)  # where it cannot hide what is typed
        try:
            return getpass.getpass(prompt)
        except (getpass.GetPassWarning, EOFError):
            raise UsageError("There is no terminal to type a passphrase at. Give --passphrase-fd N.") from None
