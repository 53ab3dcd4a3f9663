"""What lies in a store, and what of it is damaged."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from amb.store.entries import RECORD, Damaged
from amb.store.places import StoredFile
from amb.store.store import Store, explain_errors


class EntrySize(NamedTuple):
    """An entry as it lies there."""

    kind: str
    digest: str
    n_files: int
    n_bytes: int
    written: float
    """When its last file was, in seconds since 1970."""


@dataclass(frozen=True)
class Listing:
    """Everything that lies in a store, in one look."""

    entries: tuple[EntrySize, ...]
    files: Mapping[tuple[str, str], tuple[StoredFile, ...]]
    """The files of each entry, and of what would be one if it had a record."""
    others: tuple[StoredFile, ...]
    """Leases, drafts and what else belongs to no entry."""


def list_store(store: Store) -> Listing:
    """What lies in a store, by kind and digest. Raises StoreError."""
    files: dict[tuple[str, str], list[StoredFile]] = {}
    others = []
    with explain_errors(store.place, "read"):
        for file in store.place.list_files():
            kind, _, rest = file.path.partition("/")
            digest, _, name = rest.partition("/")
            if name and not kind.startswith(".") and not digest.startswith("."):
                files.setdefault((kind, digest), []).append(file)
            else:
                others.append(file)
    entries = tuple(
        EntrySize(*key, len(found) - 1, sum(each.size for each in found), max(each.written for each in found))
        for key, found in sorted(files.items())
        if any(each.path.endswith(f"/{RECORD}") for each in found)
    )
    return Listing(entries, {key: tuple(found) for key, found in files.items()}, tuple(others))


def verify_store(store: Store, kinds: Collection[str] = ()) -> Iterator[tuple[EntrySize, str | None]]:
    """Each entry, every byte of it read where it lies, and what is damaged of it. Raises StoreError."""
    for entry in list_store(store).entries:
        if kinds and entry.kind not in kinds:
            continue
        try:
            with explain_errors(store.place, "read"):
                store.place.check(entry.kind, entry.digest)
        except Damaged as damage:
            yield entry, str(damage)
        else:
            yield entry, None
