"""Copies of a store's entries at another location."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from functools import cache

from amb.errors import StoreError
from amb.store.entries import RECORD, Damaged
from amb.store.listing import EntrySize
from amb.store.store import Store, explain_errors


def copy_entries(source: Store, target: Store, entries: Iterable[EntrySize]) -> Iterator[tuple[EntrySize, str]]:
    """Each entry and what came of it: `copied`, `there` already or being computed there, or `damaged: ` and how.

    Every file is checked on the way.

    Goes on where it was stopped: an entry is there whole or not at all. Raises StoreError.
    """
    if source.location == target.location:
        raise StoreError(f"The store {source.location} cannot be copied to itself. Give another target.")
    list_target = cache(target.place.list_digests)
    for entry in entries:
        with explain_errors(target.place, "read"):
            is_there = entry.digest in list_target(entry.kind)
        try:
            yield entry, "there" if is_there or not _copy_entry(source, target, entry) else "copied"
        except Damaged as damage:
            yield entry, f"damaged: {damage}"


def _copy_entry(source: Store, target: Store, entry: EntrySize) -> bool:
    with explain_errors(source.place, "read"):
        found = source.place.read(entry.kind, entry.digest)
        text = source.place.read_text(entry.kind, entry.digest)
    if found is None or text is None:
        raise Damaged(f"{RECORD} is gone")
    with target.hold(entry.kind, entry.digest) as lease, explain_errors(target.place):
        if lease is None:
            return False
        draft = target.place.open_draft(entry.kind, entry.digest, lease.tag)
        try:
            for name in found.record["files"]:
                shutil.copy(found.folder / name, draft / name)
            return target.place.publish(entry.kind, entry.digest, draft, text) is not None
        finally:
            target.place.drop_draft(draft)
