"""Entries in a folder of this machine or of a file server: `<root>/<kind>/<digest>/`.

An entry is written in a draft beside them and renamed when it is whole; a folder can be renamed to a name only once. Leases are
files that are created with O_EXCL. Both hold on NFS (version 3 and later) too, and no lock of a file is relied on.
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from amb.store.drafts import is_abandoned
from amb.store.entries import RECORD, Damaged, check_files, read_record
from amb.store.places import WORK, FoundEntry, StoredFile

_TAKEN: Final = (errno.EEXIST, errno.ENOTEMPTY)
_FLAGS: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL


class LocalSlots:
    """Leases as files `<step>.<number>` of one folder, which holds what is under way at the moment and is never long."""

    def __init__(self, work: str) -> None:
        self._work = work

    def create(self, step: str, number: int, text: bytes) -> bool:
        """Write a file that is not there yet."""
        path = f"{self._work}/{step}.{number}"
        try:
            file = self._open_new(path)
        except FileExistsError:
            return False
        try:
            os.write(file, text)
        except OSError:  # a full disk: an empty lease would have others wait for it
            os.unlink(path)  # noqa: PTH108 (strings as everywhere in this class: it is asked for every step)
            raise
        finally:
            os.close(file)
        return True

    def _open_new(self, path: str) -> int:
        try:
            return os.open(path, _FLAGS, 0o600)
        except FileNotFoundError:
            os.makedirs(self._work, exist_ok=True)  # noqa: PTH103
            return os.open(path, _FLAGS, 0o600)

    def numbers(self, step: str) -> list[int]:
        """Which files there are."""
        start = len(step) + 1
        return [int(name[start:]) for name in _list_work(self._work, step) if name[start:].isdecimal()]

    def read(self, step: str, number: int) -> bytes | None:
        """What is in a file."""
        try:
            with open(f"{self._work}/{step}.{number}", "rb") as file:  # noqa: PTH123
                return file.read()
        except FileNotFoundError:
            return None

    def remove(self, step: str, numbers: Iterable[int]) -> None:
        """Remove files that may be there."""
        for number in numbers:
            with suppress(FileNotFoundError):
                os.unlink(f"{self._work}/{step}.{number}")  # noqa: PTH108


class LocalPlace:
    """A folder of entries."""

    pauses = (0.05, 1.0)

    def __init__(self, root: Path) -> None:
        self.root = root
        self.location = str(root.absolute())
        self.slots = LocalSlots(f"{root}/{WORK}")

    def __str__(self) -> str:
        return str(self.root)

    def read(self, kind: str, digest: str) -> FoundEntry | None:
        """An entry, checked. Raises Damaged."""
        folder = self.root / kind / digest
        text = self.read_text(kind, digest)
        if text is None:
            if folder.exists():
                raise Damaged(f"{RECORD} is gone")
            return None
        record = read_record(text)
        check_files(folder, record)
        return FoundEntry(folder, record)

    def read_text(self, kind: str, digest: str) -> bytes | None:
        """The record of an entry, unchecked."""
        try:
            with open(f"{self.root}/{kind}/{digest}/{RECORD}", "rb") as file:  # noqa: PTH123 (of ten thousands)
                return file.read()
        except (FileNotFoundError, NotADirectoryError):
            return None

    def open_draft(self, kind: str, digest: str, tag: str) -> Path:
        """A new folder beside the entries."""
        draft = self.root / WORK / f"{kind}-{digest}.{tag}"
        try:
            draft.mkdir()
        except FileNotFoundError:
            draft.mkdir(parents=True)
        return draft

    def publish(self, kind: str, digest: str, draft: Path, record: bytes) -> Path | None:
        """Rename a draft to an entry; the name can be had once."""
        (draft / RECORD).write_bytes(record)
        folder = self.root / kind / digest
        try:
            try:
                draft.rename(folder)
            except FileNotFoundError:
                folder.parent.mkdir(parents=True, exist_ok=True)
                draft.rename(folder)
        except OSError as error:
            if error.errno not in _TAKEN:
                raise
            return None
        return folder

    def drop_draft(self, draft: Path) -> None:
        """Remove a draft, if it is still there."""
        if draft.exists():
            _remove_folder(draft)

    def clear_work(self, kind: str, digest: str, tag: str) -> None:
        """Remove the drafts of earlier holders. One that wakes up finds its draft gone, not half of it."""
        step = f"{kind}-{digest}"
        for name in _list_work(str(self.root / WORK), step):
            of = name[len(step) + 1 :]
            if not of.isdecimal() and of != tag:
                _remove_folder(self.root / WORK / name)

    def clear_abandoned(self) -> None:
        """Remove the drafts of processes of this machine that were killed."""
        for draft in (self.root / WORK).glob("*.*"):
            if is_abandoned(draft.name.rpartition(".")[2]):
                self.drop_draft(draft)

    def remove(self, kind: str, digest: str) -> None:
        """Remove an entry: away first, then file by file."""
        away = self.root / WORK / f"removed-{secrets.token_hex(8)}"
        away.parent.mkdir(exist_ok=True)
        with suppress(FileNotFoundError):
            (self.root / kind / digest).rename(away)
        shutil.rmtree(away, ignore_errors=True)

    def check(self, kind: str, digest: str) -> None:
        """Read every byte of an entry. Raises Damaged."""
        if self.read(kind, digest) is None:
            raise Damaged(f"{RECORD} is gone")

    def find_folder(self, kind: str, digest: str) -> Path:
        """Where the files of an entry lie."""
        return self.root / kind / digest

    def list_kinds(self) -> list[str]:
        """The kinds of which there are entries."""
        return sorted({path.parent.name for path in self.root.glob("[!.]*/*")})

    def list_digests(self, kind: str) -> frozenset[str]:
        """The entries of a kind."""
        try:
            return frozenset(entry.name for entry in os.scandir(self.root / kind))
        except OSError:
            return frozenset()

    def list_files(self) -> Iterator[StoredFile]:
        """Every file of the folder."""
        for folder, _, names in os.walk(self.root):
            for name in names:
                path = Path(folder, name)
                with suppress(FileNotFoundError):
                    found = path.stat()
                    yield StoredFile(path.relative_to(self.root).as_posix(), found.st_size, found.st_mtime)

    def remove_file(self, path: str) -> None:
        """Remove a file, and the folders that it leaves empty."""
        target = self.root / path
        target.unlink(missing_ok=True)
        for folder in target.parents:
            if folder == self.root:
                return
            try:
                folder.rmdir()
            except OSError:
                return


def _list_work(work: str, step: str) -> list[str]:
    """The leases and drafts of a step."""
    try:
        return [name for name in os.listdir(work) if name.startswith(f"{step}.")]  # noqa: PTH208
    except FileNotFoundError:
        return []


def _remove_folder(folder: Path) -> None:
    """Remove a folder that somebody may be writing into: its name is gone before its first file is."""
    away = folder.with_name(f"removed-{secrets.token_hex(8)}")
    with suppress(OSError):
        folder.rename(away)
        folder = away
    shutil.rmtree(folder, ignore_errors=True)
