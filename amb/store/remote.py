"""Entries on an object store, or any location that fsspec reaches: `<root>/<kind>/<digest>/`.

Files lie under the digest of what is in them, `<sha256>/<name>`, so two writers cannot mix theirs. `record.json` makes them an
entry; it is created once, on condition that there is none. What is read is kept in a folder of this machine.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Any, Final

from amb.errors import StoreError
from amb.store.drafts import new_tag
from amb.store.entries import RECORD, Damaged, check_files, digest_file, read_record
from amb.store.local import LocalPlace
from amb.store.patience import Patience, is_there
from amb.store.places import WORK, FoundEntry, StoredFile

_CHUNK: Final = 1 << 22
_PROBES: Final = 4
"""How many try to create one file at the same moment."""


class Bucket:
    """The files of a location, each call made again for a while where the server does not answer."""

    def __init__(self, files: Any, root: str, patience: Patience) -> None:
        self._files, self._root, self._patience = files, root, patience
        self._probed = False
        self._turn = threading.Lock()

    def path(self, *names: str) -> str:
        """A file of the location as fsspec names it."""
        return "/".join((self._root, *names))

    def read(self, path: str) -> bytes | None:
        """A small file; None where there is none."""
        try:
            found: bytes = self._patience.ask(self._files.cat_file, path)
        except FileNotFoundError:
            return None
        return found

    def create(self, path: str, data: bytes) -> bool:
        """Write a file that is not there yet. One whose answer was lost, and that is found to be there, is one's own."""
        self._require_conditional_writes()
        try:
            self._patience.ask(self._files.pipe_file, path, data, mode="create")
        except OSError as error:
            if not is_there(error):
                raise
            return self.read(path) == data
        return True

    def upload(self, source: Path, path: str) -> None:
        """Write a file."""
        self._patience.ask(self._files.put_file, str(source), path)

    def download(self, path: str, target: Path) -> None:
        """Read a file."""
        self._patience.ask(self._files.get_file, path, str(target))

    def digest(self, path: str) -> str:
        """SHA-256 of a file, read where it lies."""

        def read() -> str:
            found = hashlib.sha256()
            with self._files.open(path, "rb", block_size=_CHUNK, cache_type="readahead") as file:
                while part := file.read(_CHUNK):
                    found.update(part)
            return found.hexdigest()

        return self._patience.ask(read)

    def remove(self, path: str) -> None:
        """Remove a file that may be there."""
        with suppress(FileNotFoundError):
            self._patience.ask(self._files.rm_file, path)

    def names(self, folder: str) -> list[str]:
        """What lies right below a folder."""
        try:
            found = self._patience.ask(self._files.ls, folder, detail=False)
        except (FileNotFoundError, NotADirectoryError):
            return []
        return [PurePosixPath(path).name for path in found]

    def files(self) -> Iterator[StoredFile]:
        """Every file of the location."""
        try:
            found = self._patience.ask(self._files.find, self._root, detail=True)
        except FileNotFoundError:
            return
        for path, facts in found.items():
            yield StoredFile(path.removeprefix(f"{self._root}/"), int(facts["size"]), _find_time(facts))

    def _require_conditional_writes(self) -> None:
        """Raise StoreError where a file can be created twice: entries and leases rest on it. Asked once, before the first."""
        with self._turn:
            if self._probed:
                return
            path = self.path(WORK, f"probe-{new_tag()}")
            created = ThreadPoolExecutor(_PROBES).map(lambda at: self._probe(path, at), range(_PROBES))
            winners = sum(created) + self._probe(path, _PROBES)
            self.remove(path)
            if winners != 1:
                raise StoreError(
                    f"The store {self._patience.name} lets a file be created {winners} times (If-None-Match: * is not heeded), "
                    "so two writers could not be told apart. Give another location: --store."
                )
            self._probed = True

    def _probe(self, path: str, at: int) -> bool:
        try:
            self._patience.ask(self._files.pipe_file, path, b"%d" % at, mode="create")
        except OSError as error:
            if not is_there(error):
                raise
            return False
        return True


class RemoteSlots:
    """Leases as files of a bucket."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket

    def create(self, step: str, number: int, text: bytes) -> bool:
        """Write a file that is not there yet."""
        return self._bucket.create(self._bucket.path(WORK, step, str(number)), text)

    def numbers(self, step: str) -> list[int]:
        """Which files there are."""
        return [int(name) for name in self._bucket.names(self._bucket.path(WORK, step)) if name.isdecimal()]

    def read(self, step: str, number: int) -> bytes | None:
        """What is in a file."""
        return self._bucket.read(self._bucket.path(WORK, step, str(number)))

    def remove(self, step: str, numbers: Iterable[int]) -> None:
        """Remove files."""
        for number in numbers:
            self._bucket.remove(self._bucket.path(WORK, step, str(number)))


class RemotePlace:
    """A location of entries behind fsspec, and the folder of this machine where what was read is kept."""

    pauses = (0.25, 3.0)

    def __init__(self, location: str, bucket: Bucket, cache: Path) -> None:
        self.location = location
        self.cache = LocalPlace(cache)
        self._bucket = bucket
        self.slots = RemoteSlots(bucket)
        self._known: dict[tuple[str, str], bytes] = {}
        self.cache.clear_abandoned()

    def __str__(self) -> str:
        return self.location

    def read(self, kind: str, digest: str) -> FoundEntry | None:
        """An entry, checked; its files are fetched where this machine has not got them. Raises Damaged."""
        text = self._known.get((kind, digest)) or self.read_text(kind, digest)
        if text is None:
            return None
        record = read_record(text)
        folder = self._find_cached(kind, digest, text) or self._fetch(kind, digest, text)
        self._known[kind, digest] = text
        return FoundEntry(folder, record)

    def read_text(self, kind: str, digest: str) -> bytes | None:
        """The record of an entry, unchecked: one request."""
        return self._bucket.read(self._bucket.path(kind, digest, RECORD))

    def _find_cached(self, kind: str, digest: str, text: bytes) -> Path | None:
        """The folder of an entry that was read before, if it is what the location says."""
        folder = self.cache.root / kind / digest
        if self.cache.read_text(kind, digest) != text:
            return None
        try:
            check_files(folder, read_record(text))
        except Damaged:
            return None
        return folder

    def _fetch(self, kind: str, digest: str, text: bytes) -> Path:
        """The folder of an entry, fetched and checked. Raises Damaged."""
        draft = self.cache.open_draft(kind, digest, new_tag())
        try:
            for name, sha in read_record(text)["files"].items():
                try:
                    self._bucket.download(self._path_of(kind, digest, name, sha), draft / name)
                except FileNotFoundError:
                    raise Damaged(f"{name} is gone") from None
                if digest_file(draft / name) != sha:
                    raise Damaged(f"{name} was changed")
                (draft / name).chmod(0o600)  # keys are among them
            return self._keep(kind, digest, draft, text)
        finally:
            self.cache.drop_draft(draft)

    def _keep(self, kind: str, digest: str, draft: Path, text: bytes) -> Path:
        """Put an entry into the cache; what is there already stays if it is the same."""
        while (folder := self.cache.publish(kind, digest, draft, text)) is None:
            if (found := self._find_cached(kind, digest, text)) is not None:
                return found
            self.cache.remove(kind, digest)
        return folder

    def _path_of(self, kind: str, digest: str, name: str, sha: str) -> str:
        return self._bucket.path(kind, digest, sha, name)

    def open_draft(self, kind: str, digest: str, tag: str) -> Path:
        """A new folder in the cache."""
        return self.cache.open_draft(kind, digest, tag)

    def publish(self, kind: str, digest: str, draft: Path, record: bytes) -> Path | None:
        """Upload the files, then create the record."""
        files = read_record(record)["files"]
        for name, sha in files.items():
            self._bucket.upload(draft / name, self._path_of(kind, digest, name, sha))
        if not self._bucket.create(self._bucket.path(kind, digest, RECORD), record):
            return None  # what was uploaded lies beside the other's files, under other digests: `gc` removes it
        self._known[kind, digest] = record
        return self._keep(kind, digest, draft, record)

    def drop_draft(self, draft: Path) -> None:
        """Remove a draft from the cache."""
        self.cache.drop_draft(draft)

    def clear_work(self, kind: str, digest: str, tag: str) -> None:
        """Nothing: drafts lie on the machines of their writers, which remove them."""

    def remove(self, kind: str, digest: str) -> None:
        """Remove an entry: its record first."""
        self._known.pop((kind, digest), None)
        text = self.read_text(kind, digest)
        self._bucket.remove(self._bucket.path(kind, digest, RECORD))
        self.cache.remove(kind, digest)
        with suppress(Damaged):
            for name, sha in read_record(text or b"")["files"].items():
                self._bucket.remove(self._path_of(kind, digest, name, sha))

    def check(self, kind: str, digest: str) -> None:
        """Read every byte of an entry where it lies. Raises Damaged."""
        for name, sha in read_record(self.read_text(kind, digest) or b"")["files"].items():
            try:
                found = self._bucket.digest(self._path_of(kind, digest, name, sha))
            except FileNotFoundError:
                raise Damaged(f"{name} is gone") from None
            if found != sha:
                raise Damaged(f"{name} was changed")

    def find_folder(self, kind: str, digest: str) -> Path:
        """Where the files of an entry lie once they are fetched."""
        return self.cache.find_folder(kind, digest)

    def list_kinds(self) -> list[str]:
        """The kinds of which there are entries."""
        return sorted(name for name in self._bucket.names(self._bucket.path()) if not name.startswith("."))

    def list_digests(self, kind: str) -> frozenset[str]:
        """The entries of a kind."""
        return frozenset(self._bucket.names(self._bucket.path(kind)))

    def list_files(self) -> Iterator[StoredFile]:
        """Every file of the location."""
        return self._bucket.files()

    def remove_file(self, path: str) -> None:
        """Remove a file."""
        self._bucket.remove(self._bucket.path(path))


def _find_time(facts: Any) -> float:
    """When a file was written, by the server's clock; 0 where it does not say."""
    for name in ("LastModified", "last_modified", "mtime", "created", "updated"):
        value = facts.get(name)
        if value is not None:
            return float(value.timestamp()) if hasattr(value, "timestamp") else float(value)
    return 0.0
