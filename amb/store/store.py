"""The store: results of finished steps, addressed by what they were computed from. Asking twice is how a run resumes.

An entry is there whole or not at all: it is published at once, when it is finished. A damaged one is noticed by its digests, said
and computed again. Whoever computes an entry holds its lease, so that others wait for it; a holder that lost its lease, for
it was frozen or cut off, notices before it publishes and takes what the other has made.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from amb.api.digests import finite
from amb.errors import StoreError
from amb.store.entries import Damaged, StoreEntry, digest_files, find_address, write_record
from amb.store.leases import SECONDS, Lease, Leases
from amb.store.opening import open_place
from amb.store.patience import tell
from amb.store.places import FoundEntry

_NO_ROOM: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG})
_NO_ROOM_TEXTS: Final = frozenset(map(os.strerror, _NO_ROOM))
_TOLD_AFTER: Final = 30.0
"""Seconds of waiting for somebody else after which it is said."""
Make = Callable[[Path], Mapping[str, Any]]
"""Writes an entry's files into the folder it is given and returns its facts, as JSON."""


class Store:
    """The entries of a location: a folder, or a URL such as `s3://bucket/folder`. Safe to share, also between machines."""

    def __init__(
        self, location: str | Path, warn: Callable[[str], None] = lambda _: None, *, lease_seconds: float = SECONDS
    ) -> None:
        self.place = open_place(location, warn)
        self.leases = Leases(self.place.slots, lease_seconds)
        self._warn = warn

    @property
    def location(self) -> str:
        """What opens this store in another process, or on another machine that can reach it."""
        return self.place.location

    def get_or_make(self, kind: str, inputs: Mapping[str, Any], make: Make) -> StoreEntry:
        """The entry for `inputs`, computed by `make` where there is none yet. Raises StoreError."""
        digest = find_address(kind, inputs)
        waited, (pause, longest) = 0.0, self.place.pauses
        while True:
            try:
                if found := self._read(kind, digest):
                    return found
            except Damaged:  # whoever gets the lease deals with it
                pass
            with self.hold(kind, digest) as lease:
                if lease and (entry := self._get_or_make_held(kind, digest, inputs, make, lease)):
                    return entry
            if lease is None:
                self._wait(kind, digest, waited, pause)
                waited, pause = waited + pause, min(1.5 * pause, longest)

    def open_entry(self, kind: str, digest: str) -> StoreEntry | None:
        """The entry of an address, fetched where it lies elsewhere; None where there is none, or a damaged one, which is said.

        Raises StoreError where the location cannot be read.
        """
        try:
            return self._read(kind, digest)
        except Damaged as damage:
            self._warn(f"store entry {kind}/{digest} in {self.place} is damaged ({damage})")
            return None

    def _read(self, kind: str, digest: str) -> StoreEntry | None:
        with explain_errors(self.place, "read"):
            found: FoundEntry | None = self.place.read(kind, digest)
        return StoreEntry(digest, found.folder, found.record["facts"], cached=True) if found else None

    @contextmanager
    def hold(self, kind: str, digest: str) -> Iterator[Lease | None]:
        """The lease of a step while one is at it; None where somebody else has it."""
        with explain_errors(self.place):
            lease = self.leases.take(f"{kind}-{digest}")
        try:
            yield lease
        finally:
            if lease is not None:
                with explain_errors(self.place):
                    lease.release()

    def _wait(self, kind: str, digest: str, waited: float, pause: float) -> None:
        """Let some time pass for somebody else to finish."""
        if waited < _TOLD_AFTER <= waited + pause:
            holder = self.leases.find_holder(f"{kind}-{digest}")
            self._warn(f"waiting for a step of kind {kind}, which {holder} computes")
        time.sleep(pause)

    def _get_or_make_held(
        self, kind: str, digest: str, inputs: Mapping[str, Any], make: Make, lease: Lease
    ) -> StoreEntry | None:
        """As `get_or_make`, by the holder of the lease; None where that was lost."""
        try:
            if found := self._read(kind, digest):
                return found
        except Damaged as damage:
            if not lease.is_held():
                return None
            self._warn(f"store entry {kind}/{digest} in {self.place} is damaged ({damage}): computing it again")
            with explain_errors(self.place):
                self.place.remove(kind, digest)
        with explain_errors(self.place):
            if lease.is_inherited:
                self.place.clear_work(kind, digest, lease.tag)
            draft = self.place.open_draft(kind, digest, lease.tag)
        try:
            return self._make(kind, digest, inputs, make, lease, draft)
        finally:
            self.place.drop_draft(draft)

    def _make(
        self, kind: str, digest: str, inputs: Mapping[str, Any], make: Make, lease: Lease, draft: Path
    ) -> StoreEntry | None:
        """Compute an entry and publish it; None where the lease was lost, or somebody else has published it."""
        try:
            facts = _call(make, draft, self.place)
            with explain_errors(self.place):
                record = write_record(inputs, facts, digest_files(draft))
                held = lease.is_held()
                folder = self.place.publish(kind, digest, draft, record) if held else None
        except Exception:
            if lease.is_held() and not lease.has_lapsed:
                raise
            folder = None  # whoever took the lease over has taken the draft away
        if folder is None:
            self._warn(
                f"this process was held up at a step of kind {kind}, and another took it over: taking its result"
            )
            return None
        return StoreEntry(digest, folder, facts, cached=False)


def open_store(location: str | Path, warn: Callable[[str], None] = lambda _: None) -> Store:
    """The store of a location. Raises UsageError and MissingError where it cannot be one; nothing is read yet."""
    return Store(location, warn)


def _call(make: Make, draft: Path, where: object) -> Mapping[str, Any]:
    """What `make` returns. A full disk is a StoreError, in whatever form a library reports it; the rest is its own."""
    try:
        facts: Mapping[str, Any] = finite(make(draft))
    except Exception as error:
        why = _find_lack_of_room(error)
        if why is None:
            raise
        raise _unwritable(where, why) from None
    return facts


def _find_lack_of_room(error: BaseException) -> str | None:
    """What the system said where a disk is full or read-only; safetensors and torch have their own errors for it."""
    if isinstance(error, OSError):
        return error.strerror if error.errno in _NO_ROOM else None
    return next((text for text in _NO_ROOM_TEXTS if text in str(error)), None)


@contextmanager
def explain_errors(where: object, what: str = "written") -> Iterator[None]:
    """Turn what a file system refuses into a StoreError."""
    try:
        yield
    except OSError as error:
        raise _unwritable(where, tell(error), what) from None


def _unwritable(where: object, why: str, what: str = "written") -> StoreError:
    return StoreError(
        f"The store {where} cannot be {what}: {why}. Free space, or give another --store or --output-dir; what is finished stays."
    )
