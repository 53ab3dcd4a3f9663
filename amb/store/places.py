"""What a store needs of the location where its entries lie."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol

from amb.store.leases import Slots

WORK: Final = ".work"
"""The folder of leases and drafts: what is not, or not yet, an entry."""


class StoredFile(NamedTuple):
    """A file of a location."""

    path: str
    """Below the location, with slashes."""
    size: int
    """Bytes."""
    written: float
    """Seconds since 1970, by the clock of the location."""


class FoundEntry(NamedTuple):
    """An entry that was read and checked."""

    folder: Path
    """Its files on this machine."""
    record: Mapping[str, Any]


class Place(Protocol):
    """A location of entries. Every method may raise OSError, and StoreError where it says what to do."""

    @property
    def location(self) -> str:
        """What opens it in another process or on another machine."""
        ...

    @property
    def slots(self) -> Slots:
        """Its leases."""
        ...

    @property
    def pauses(self) -> tuple[float, float]:
        """Seconds between two looks while one waits for somebody else: at first, and at most."""
        ...

    def read(self, kind: str, digest: str) -> FoundEntry | None:
        """An entry, checked, its files on this machine; None where there is none. Raises Damaged."""
        ...

    def read_text(self, kind: str, digest: str) -> bytes | None:
        """The record of an entry, unchecked, without its files."""
        ...

    def open_draft(self, kind: str, digest: str, tag: str) -> Path:
        """A new folder of this machine in which an entry may be written."""
        ...

    def publish(self, kind: str, digest: str, draft: Path, record: bytes) -> Path | None:
        """Make a draft an entry, whole and at once: its folder on this machine. None where there is an entry already."""
        ...

    def drop_draft(self, draft: Path) -> None:
        """Remove a draft, if it is still there."""
        ...

    def clear_work(self, kind: str, digest: str, tag: str) -> None:
        """Remove what earlier holders of a step's lease left; `tag` is the present one's."""
        ...

    def remove(self, kind: str, digest: str) -> None:
        """Remove an entry; readers never see a part of it."""
        ...

    def check(self, kind: str, digest: str) -> None:
        """Read every byte of an entry where it lies. Raises Damaged."""
        ...

    def find_folder(self, kind: str, digest: str) -> Path:
        """The folder of this machine where the files of an entry lie, once they were read."""
        ...

    def list_kinds(self) -> list[str]:
        """The kinds of which there are entries."""
        ...

    def list_digests(self, kind: str) -> frozenset[str]:
        """The entries of a kind, in one look."""
        ...

    def list_files(self) -> Iterator[StoredFile]:
        """Every file of the location."""
        ...

    def remove_file(self, path: str) -> None:
        """Remove one of those."""
        ...
