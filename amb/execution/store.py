"""The store: results of finished steps, addressed by what they were computed from.

An entry is a folder of files with a `record.json` that lists their digests. It is written under a temporary name
and renamed when it is whole, so a killed process leaves no half-written entry; a damaged one is noticed by its
digests, said and computed again. Asking twice for the same thing is how a run resumes.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from amb.api.digests import digest_of, finite
from amb.errors import BadParamsError, StoreError

SCHEMA = 1
_DAMAGE = (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError)
"""What comes of reading a record that is none."""
_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS})
Make = Callable[[Path], Mapping[str, Any]]
"""Writes an entry's files into the folder it is given and returns its facts, as JSON."""


@dataclass(frozen=True)
class StoreEntry:
    """A finished step."""

    digest: str
    folder: Path
    facts: Mapping[str, Any]
    cached: bool
    """True where it was found, False where it was computed just now."""


class Store:
    """A folder of entries, `<root>/<kind>/<digest>`. Safe to share between processes on one machine."""

    def __init__(self, root: Path, warn: Callable[[str], None] = lambda _: None) -> None:
        self.root = root
        self._warn = warn

    @property
    def location(self) -> str:
        """Where it is, as any process reaches it."""
        return str(self.root.resolve())

    def open_entry(self, kind: str, digest: str) -> StoreEntry | None:
        """An entry by its address; None where there is none."""
        return self._read_entry(self.root / kind / digest, digest)

    def get_or_make(self, kind: str, inputs: Mapping[str, Any], make: Make) -> StoreEntry:
        """The entry for `inputs`, computed by `make` where there is none yet. Raises StoreError."""
        digest = digest_of({"schema": SCHEMA, "kind": kind, **inputs})
        folder = self.root / kind / digest
        with self._lock_entry(kind, digest):
            return self._read_entry(folder, digest) or self._write_entry(folder, digest, inputs, make)

    def _read_entry(self, folder: Path, digest: str) -> StoreEntry | None:
        if not folder.exists():
            return None
        damage = _find_damage(folder)
        if damage:
            self._warn(f"store entry {folder} is damaged ({damage}): computing it again")
            shutil.rmtree(folder, ignore_errors=True)
            return None
        return StoreEntry(digest, folder, json.loads((folder / "record.json").read_text())["facts"], cached=True)

    def _write_entry(self, folder: Path, digest: str, inputs: Mapping[str, Any], make: Make) -> StoreEntry:
        draft = folder.with_name(f".draft-{digest}")  # under the entry's lock: what lies there is a killed process's
        shutil.rmtree(draft, ignore_errors=True)
        with _explain_errors(self.root):
            draft.mkdir()
        try:
            with _explain_errors(self.root, only=_NO_ROOM):
                facts = finite(make(draft))
            with _explain_errors(self.root):
                files = {path.name: _digest_file(path) for path in sorted(draft.iterdir())}
                record = {"schema": SCHEMA, "inputs": inputs, "facts": facts, "files": files}
                record["digest"] = digest_of(record)
                (draft / "record.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
                draft.rename(folder)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
        return StoreEntry(digest, folder, facts, cached=False)

    @contextmanager
    def _lock_entry(self, kind: str, digest: str) -> Iterator[None]:
        """Let one process at a time compute an entry; another that wants it waits and finds it."""
        from filelock import FileLock

        with _explain_errors(self.root):
            (self.root / kind).mkdir(parents=True, exist_ok=True)
            (self.root / ".locks").mkdir(exist_ok=True)
        with FileLock(self.root / ".locks" / f"{kind}-{digest}"):
            yield


def open_store(location: str, warn: Callable[[str], None] = lambda _: None) -> Store:
    """The store at a location."""
    return Store(Path(location), warn)


class NotStored(Exception):  # noqa: N818 (an answer, not an error)
    """Something was asked of a Lookup that is not there."""


class Lookup(Store):
    """A store that only says what is there: nothing is computed, written or removed.

    Nothing is checked either: damage is noticed, said and made good when an entry is used.
    """

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.list_digests = cache(self._list_entries)
        """The digests of a kind, listed once."""

    def get_or_make(self, kind: str, inputs: Mapping[str, Any], make: Make) -> StoreEntry:
        """The entry for `inputs`. Raises NotStored."""
        digest = digest_of({"schema": SCHEMA, "kind": kind, **inputs})
        if digest not in self.list_digests(kind):
            raise NotStored(kind)
        try:
            with open(f"{self.root}/{kind}/{digest}/record.json", "rb") as file:  # noqa: PTH123 (of ten thousands)
                facts = json.loads(file.read())["facts"]
        except _DAMAGE:
            raise NotStored(kind) from None
        return StoreEntry(digest, self.root / kind / digest, facts, cached=True)

    def _list_entries(self, kind: str) -> frozenset[str]:
        """What is there, in one look; most of what is asked of a new sweep is not."""
        try:
            return frozenset(entry.name for entry in os.scandir(self.root / kind))
        except OSError:
            return frozenset()


def check_writable(folder: Path) -> None:
    """Raise BadParamsError where results could not be written to `folder`; leaves nothing behind."""
    parent = folder
    while not parent.exists() and parent != parent.parent:
        parent = parent.parent
    try:
        with tempfile.TemporaryDirectory(prefix=".amb-", dir=parent):
            pass
    except NotADirectoryError:
        raise BadParamsError(
            f"Results cannot go to {folder}: {parent} is a file. Give a folder: --output-dir."
        ) from None
    except OSError as error:
        why = error.strerror or str(error)
        raise BadParamsError(
            f"Results cannot go to {folder}: {parent} is read-only ({why}). Give another: --output-dir."
        ) from None


def _find_damage(folder: Path) -> str | None:
    try:
        for name, digest in _read_record(folder)["files"].items():
            if _digest_file(folder / name) != digest:
                return f"{name} was changed"
    except _DAMAGE as error:
        return f"{type(error).__name__}: {error}"
    return None


def _read_record(folder: Path) -> dict[str, Any]:
    """What is said of an entry. Raises one of `_DAMAGE`."""
    record: dict[str, Any] = json.loads((folder / "record.json").read_text())
    if record.pop("digest") != digest_of(record):
        raise ValueError("record.json was changed")
    return record


def _digest_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def _explain_errors(root: Path, only: frozenset[int] | None = None) -> Iterator[None]:
    """Turn what the file system refuses into a StoreError; `only` some error numbers, for code of plugins."""
    try:
        yield
    except OSError as error:
        if only is not None and error.errno not in only:
            raise
        raise StoreError(
            f"The store {root} cannot be written: {error.strerror or error}. Free space, or give another --output-dir; "
            "what is finished stays."
        ) from None
