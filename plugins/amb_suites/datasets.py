"""What a data set is to a suite: where it lies under the data root, what is in it, and what is said where it is missing."""

from __future__ import annotations

import hashlib
import stat
import unicodedata
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import ClassVar, Final, Literal, NamedTuple, Protocol

import amb
from amb import DATA, Fetch, data_root, is_offline, may_download

LARGEST: Final = 2**28
"""Bytes of an image that is still read."""
Part = Literal["train", "test"]
Empty = Literal["refuse", "drop"]


class DataError(amb.AmbError):
    """A data set that is there but not in order: a broken image, an empty class, a list that does not parse."""

    exit_code = 2


class Item(NamedTuple):
    """An image of a data set, and what is known of it before it is read."""

    name: str
    """Where its bytes are within the data set: a path, or a parquet file, row and column joined by `#`."""
    label: int | None
    """None where the mask says it: the class other than 0 that covers the most pixels."""
    mask: str | None = None
    """Where the bytes of its mask are."""


class Reader(Protocol):
    """Gets the bytes of images by name; keeps nothing between calls, so that threads may share it."""

    def read(self, names: Sequence[str]) -> list[bytes | OSError]:
        """The bytes of each, or why they cannot be had."""
        ...


@dataclass(frozen=True)
class Files:
    """Images that are files of their own."""

    root: Path

    def read(self, names: Sequence[str]) -> list[bytes | OSError]:
        return [_read_bytes(self.root / name) for name in names]


@dataclass(frozen=True)
class Index:
    """What is in a data set: names and labels, no pixels."""

    title: str
    reader: Reader
    classes: tuple[str, ...]
    parts: Mapping[Part, Sequence[Item]]
    """`test` is missing where the data set has no split of its own."""
    n_mask_classes: int = 0
    mask_offset: int = 0
    """What is taken from the numbers in mask files, so that classes count from 0."""
    upright: bool = False
    """Whether photographs are turned as their EXIF orientation says. Published sets are read as torchvision reads them."""

    def digest(self) -> str:
        """Of every name and label in it, whatever the order in which the disk lists them."""
        rows = sorted(
            f"{part}\0{one_form(item.name)}\0{item.label}" for part, items in self.parts.items() for item in items
        )
        return hashlib.sha256(
            "\n".join([*map(one_form, self.classes), *rows]).encode(errors="surrogateescape")
        ).hexdigest()[:32]


class DataSet(ABC):
    """A data set that is known by name."""

    folder: str
    """Its folder under the data root."""
    title: ClassVar[str]
    expected: ClassVar[str]
    """What has to lie in its folder."""
    source: ClassVar[str]
    """Where it comes from: an address."""
    how: ClassVar[str]
    """What to do to get it, as a sentence."""
    size: ClassVar[int | None]
    """Bytes to fetch, as published or nearly so."""
    fetchable: ClassVar[bool] = False
    """Whether `download` is implemented."""

    @abstractmethod
    def is_there(self, at: Path) -> bool:
        """Whether the folder holds it."""

    @abstractmethod
    def read(self, at: Path, empty: Empty) -> Index:
        """List it. Raises DataError, OSError."""

    def download(self, at: Path) -> None:
        """Fetch it into its folder."""
        raise NotImplementedError

    def fetch(self) -> Fetch:
        """What `amb plan` says of it."""
        there = False
        with suppress(OSError):
            there = self.is_there(data_root() / self.folder)
        return Fetch(f"data set {self.title}", self.source, self.size, there)

    def index(self, empty: Empty = "refuse") -> Index:
        """List it, fetched first where that was asked for. Raises MissingError, DataError."""
        at = data_root() / self.folder
        try:
            _refuse_files(data_root(), at)
            if not self.is_there(at):
                self._fetch_if_allowed(at)
            return self.read(at, empty)
        except OSError as error:
            where = error.filename or at
            raise amb.MissingError(f"{self.title}: {where} cannot be read ({error.strerror or error}).") from None

    def _fetch_if_allowed(self, at: Path) -> None:
        if not (self.fetchable and may_download()):
            raise amb.MissingError(f"{self.title} is not at {at}: expected is {self.expected}. {self._give_advice()}")
        from filelock import FileLock

        at.mkdir(parents=True, exist_ok=True)
        with FileLock(at.parent / f".{at.name}.lock"):  # one of several workers fetches, the others wait
            if not self.is_there(at):
                self._fetch_or_explain(at)

    def _fetch_or_explain(self, at: Path) -> None:
        try:
            self.download(at)
        except Exception as error:  # noqa: BLE001 (whatever a library raises where there is no network)
            reason = " ".join(str(error).split())[:200]
            raise amb.MissingError(
                f"{self.title} could not be fetched from {self.source} ({type(error).__name__}: {reason}). {self.how}"
            ) from None

    def _give_advice(self) -> str:
        other = f"Another root: --data ROOT, or {DATA}."
        if not self.fetchable:
            return f"{self.how} {other}"
        fetch = "Without --offline, --download fetches it." if is_offline() else "--download fetches it."
        return f"{self.how} {fetch} {other}"


def one_form(name: str) -> str:
    """A name in Unicode's form C: macOS writes an accent as a letter of its own, and the role must not hang on that."""
    return unicodedata.normalize("NFC", name)


def safe_folder(name: str) -> str:
    """A folder under the data root, as a spec names it. Raises ValueError where it would lead out of there."""
    path = PurePosixPath(name)
    if path.is_absolute() or PureWindowsPath(name).drive or "\\" in name or ".." in path.parts or not path.parts:
        raise ValueError("names a folder under the data root, such as birds or mine/birds")
    return name


def plain_name(name: str, listing: Path) -> str:
    """The name of a file, as a list gives it. Raises DataError where it would lead to another folder."""
    if name in ("", ".", "..") or "/" in name or "\\" in name or "\0" in name:
        raise DataError(f"{listing} names the file '{name}', which is not a plain name. Get the list again.")
    return name


def _refuse_files(*folders: Path) -> None:
    """Raises MissingError where the data root, or a folder in it, is a file."""
    for path in folders:
        if path.exists() and not path.is_dir():
            raise amb.MissingError(
                f"{path} is a file; a folder of data sets is expected there (--data ROOT, or {DATA})."
            )


def _read_bytes(path: Path) -> bytes | OSError:
    try:
        facts = path.stat()
        if not stat.S_ISREG(facts.st_mode):
            return OSError(0, "it is a pipe or a device, not a file")
        if facts.st_size > LARGEST:
            return OSError(0, f"it is larger than {LARGEST:,} bytes")
        return path.read_bytes()
    except OSError as error:
        return error
