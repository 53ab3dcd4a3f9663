"""Files of an owner: new ones appear whole or not at all, nothing is overwritten unasked, secrets are for the owner alone."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from amb.errors import MissingError, StoreError, UsageError
from amb.runtime.regular_files import open_file, read_file

PUBLIC: Final = 0o644
SECRET: Final = 0o600


def write_new(path: Path, data: bytes, mode: int = PUBLIC) -> None:
    """Write a file that is not there yet; it appears whole. Raises UsageError where it is there, and StoreError."""
    with _explain_write(path), _write_beside(path, data, mode) as written:
        try:
            os.link(written, path)
        except FileExistsError:
            raise UsageError(f"{path} is there already and is not overwritten. Name another file.") from None
        except OSError:  # a file system without hard links
            _rename_new(written, path)


def replace_file(path: Path, data: bytes, mode: int = PUBLIC) -> None:
    """Write a file, or a new content in its place, whole at once. Raises StoreError."""
    with _explain_write(path), _write_beside(path, data, mode) as written:
        written.replace(path)


def read_bytes(path: Path, most: int, what: str) -> bytes:
    """All of a regular file of at most `most` bytes. Raises MissingError, and UsageError where it cannot be read."""
    try:
        return read_file(path, most)
    except FileNotFoundError:
        raise MissingError(f"{what} {path} does not exist. Give another path.") from None
    except OSError as error:
        raise UsageError(f"{what} {path} cannot be read: {error.strerror or error}.") from None


def hash_file(path: Path) -> str:
    """SHA-256 of a regular file, read in parts. Raises UsageError."""
    try:
        with open_file(path) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror or error}.") from None


def list_files(folder: Path) -> list[str]:
    """The files of a folder and of those in it, as names with `/`, sorted. Linked folders are left alone."""
    if not folder.is_dir():
        raise MissingError(f"The folder {folder} does not exist. Give another path.")
    found = [Path(place, name) for place, _, names in os.walk(folder) for name in names]
    return sorted(path.relative_to(folder).as_posix() for path in found)


def make_folder(folder: Path) -> None:
    """A folder, unless it is there. Raises StoreError."""
    with _explain_write(folder):
        folder.mkdir(parents=True, exist_ok=True)


def make_private_folder(folder: Path) -> None:
    """A folder that only its owner may enter. Raises StoreError."""
    with _explain_write(folder):
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        folder.chmod(0o700)


@contextmanager
def _write_beside(path: Path, data: bytes, mode: int) -> Iterator[Path]:
    """The content under another name in the same folder, on the disk; gone afterwards."""
    number, name = tempfile.mkstemp(
        prefix=".amb-", dir=path.parent
    )  # nobody else may read it, whatever the mode is to be
    try:
        with os.fdopen(number, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
            os.fchmod(file.fileno(), mode)
        yield Path(name)
    finally:
        with suppress(FileNotFoundError):
            Path(name).unlink()


def _rename_new(written: Path, path: Path) -> None:
    if path.exists():
        raise UsageError(f"{path} is there already and is not overwritten. Name another file.")
    written.replace(path)


@contextmanager
def _explain_write(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StoreError(f"{path} cannot be written: {error.strerror or error}. Choose another place.") from None
    except ValueError as error:  # a name with a zero byte
        raise StoreError(f"No file can have this name ({error}). Choose another.") from None
