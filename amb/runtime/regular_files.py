"""Reading what may come from a stranger: regular files only, up to a size; a pipe would hang, a device has no end."""

from __future__ import annotations

import os
import stat
from io import BufferedReader
from pathlib import Path


def exists(path: Path) -> bool:
    """Whether something is there; nothing is under a name that no file can have."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def read_file(path: Path, most: int) -> bytes:
    """All of a regular file of at most `most` bytes. Raises OSError, whose `strerror` says what is wrong."""
    with open_file(path) as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise OSError(0, f"It is larger than {most:,} bytes", str(path))
    return data


def read_start(path: Path, n: int) -> tuple[bytes, int]:
    """The first `n` bytes of a regular file, and its size. Raises OSError, whose `strerror` says what is wrong."""
    with open_file(path) as file:
        return file.read(n), os.fstat(file.fileno()).st_size


def open_file(path: Path) -> BufferedReader:
    """A regular file, open for reading. Raises OSError, whose `strerror` says what is wrong."""
    return os.fdopen(_open_regular(path), "rb")


def _open_regular(path: Path) -> int:
    """A descriptor to read from; opening a pipe that nobody writes to would wait for ever, so that is asked first."""
    try:
        number = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except ValueError as error:  # a name with a zero byte, or one that has no bytes
        raise OSError(0, f"No file can have this name ({error})", None) from None
    kind = os.fstat(number).st_mode
    if stat.S_ISREG(kind):
        return number
    os.close(number)
    if stat.S_ISDIR(kind):
        raise IsADirectoryError(21, "Is a directory", str(path))
    raise OSError(0, "It is a pipe or a device, not a file", str(path))
