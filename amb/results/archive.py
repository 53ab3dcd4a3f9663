"""A stranger's zip: what is in it is weighed before any of it is unpacked."""

from __future__ import annotations

import os
import stat
import struct
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Final

from amb.results.plain_json import MOST_VALUES, count_values

MOST_BYTES: Final = 1 << 28
"""Unpacked size from which a bundle is refused, arrays among them; so many cells as `MOST_VALUES` take half of it."""
MOST_FILES: Final = 30_001
"""In a bundle: three of a run, and the manifest."""
_END: Final = struct.Struct("<4s4H2LH")
"""The record at the end of a zip (APPNOTE.TXT, 4.3.16); the sixth number is the length of the list of files."""
_LONGEST_COMMENT: Final = 2**16
_LONGEST_ENTRY: Final = 256
"""Of a file in that list: 46 bytes, and a name of at most 130."""


class Refused(Exception):  # noqa: N818 (its text is the reason that the error for the user gives)
    """What is wrong with a bundle."""


class Budget:
    """What a bundle may still take: one for all its files, however many there are."""

    def __init__(self) -> None:
        self._bytes, self._values = MOST_BYTES, MOST_VALUES

    def take_bytes(self, archive: zipfile.ZipFile) -> None:
        """Count what an archive unpacks to; zipfile never unpacks more than an entry declares. Raises Refused."""
        self._bytes -= sum(entry.file_size for entry in archive.infolist())
        if self._bytes < 0:
            raise Refused(f"unpacked it takes {MOST_BYTES - self._bytes:,} bytes, more than {MOST_BYTES:,}")

    def take_values(self, data: bytes) -> None:
        """Count what JSON would make. Raises Refused."""
        self._values -= count_values(data)
        if self._values < 0:
            raise Refused(f"it holds more than {MOST_VALUES:,} values")


@contextmanager
def open_archive(file: IO[bytes], budget: Budget) -> Iterator[zipfile.ZipFile]:
    """A zip whose every entry is a plain file, packed as amb packs. Raises Refused, BadZipFile."""
    _check_directory(file)
    with zipfile.ZipFile(file) as archive:
        seen: set[str] = set()
        for entry in archive.infolist():
            _check_entry(entry, seen)
        budget.take_bytes(archive)
        yield archive


def _check_directory(file: IO[bytes]) -> None:
    """The list of files, which zipfile reads whole, has a bearable length: it is said at the end."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - _END.size - _LONGEST_COMMENT))
    tail = file.read()
    at = tail.rfind(b"PK\5\6")
    if at < 0 or len(tail) < at + _END.size:
        raise zipfile.BadZipFile("it has no end of a zip")
    length = _END.unpack_from(tail, at)[5]
    if length > MOST_FILES * _LONGEST_ENTRY:
        raise Refused(f"its list of files takes {length:,} bytes")


def _check_entry(entry: zipfile.ZipInfo, seen: set[str]) -> None:
    name = entry.orig_filename
    if stat.S_IFMT(entry.external_attr >> 16) not in (0, stat.S_IFREG):
        raise Refused(f"{name:.120} is a link or a device")
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) or entry.flag_bits & 1:
        raise Refused(f"{name:.120} is encrypted, or packed in a way that amb does not use")
    if name in seen:
        raise Refused(f"{name:.120} is in it twice")
    seen.add(name)
