"""What of a store nobody needs any more: what killed processes left, entries that no results refer to, the cache."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

from amb.runtime.wording import count
from amb.store.entries import RECORD, Damaged, read_record
from amb.store.leases import Leases
from amb.store.listing import EntrySize, Listing, list_store
from amb.store.places import WORK, StoredFile
from amb.store.remote import RemotePlace
from amb.store.store import Store, explain_errors

GRACE: Final = 86400.0
"""Seconds for which an entry stays that no results refer to yet: the run that made it may still go on."""


@dataclass
class Waste:
    """What may be removed, and why."""

    files: list[StoredFile] = field(default_factory=list)
    """Drafts, leases and uploads of dead processes."""
    entries: list[EntrySize] = field(default_factory=list)
    """Entries that no results refer to."""
    n_cached: int = 0
    """Bytes of this machine's copies of what lies elsewhere."""


def find_waste(
    store: Store, referred: Collection[str] | None, *, cache: bool = False, say: Callable[[str], None] = lambda _: None
) -> Waste:
    """What may go. `referred` are the digests that results hold; None leaves every entry. Raises StoreError."""
    listing = list_store(store)
    held = _find_held(store, listing, say)
    waste = Waste(files=[file for file in listing.others if not _belongs_to(held, file)])
    entries = {(each.kind, each.digest) for each in listing.entries}
    for (kind, digest), files in listing.files.items():
        if f"{kind}-{digest}" not in held:
            is_there = (kind, digest) in entries
            named = _list_named(store, kind, digest) if is_there else set()
            lost = [file for file in files if named is not None and file.path.split("/", 2)[2] not in named]
            if lost and not _has_begun(store, listing, kind, digest, is_there=is_there):
                waste.files += lost
    if referred is not None:
        waste.entries = _find_unreferred(store, listing, referred)
    if cache and isinstance(store.place, RemotePlace):
        waste.n_cached = sum(file.size for file in store.place.cache.list_files())
    return waste


def remove_waste(store: Store, waste: Waste) -> None:
    """Remove what was found. Raises StoreError."""
    with explain_errors(store.place):
        for entry in waste.entries:
            store.place.remove(entry.kind, entry.digest)
        for file in waste.files:
            store.place.remove_file(file.path)
        if waste.n_cached and isinstance(store.place, RemotePlace):
            shutil.rmtree(store.place.cache.root, ignore_errors=True)


def _find_held(store: Store, listing: Listing, say: Callable[[str], None]) -> set[str]:
    """The steps that somebody computes. Leases of other machines are looked at for as long as they last."""
    tops: dict[str, int] = {}
    for file in listing.others:
        step, number = _read_name(file)
        if number is not None:
            tops[step] = max(number, tops.get(step, 0))
    unsure = {step for step, top in tops.items() if not store.leases.is_over(step, top)}
    if unsure:
        seconds = max(map(store.leases.find_seconds, unsure))
        say(f"looking for {seconds:.0f} seconds whether the holders of {count(len(unsure), 'lease')} live")
        time.sleep(seconds + 0.1)
    return {step for step in unsure if _is_alive(store.leases, step, tops[step])}


def _is_alive(leases: Leases, step: str, top: int) -> bool:
    numbers = leases.slots.numbers(step)
    return bool(numbers) and (max(numbers) != top or not leases.is_over(step, top))


def _read_name(file: StoredFile) -> tuple[str, int | None]:
    """The step that a file of the work folder belongs to, and the number of a lease: `.work/step/1` or `.work/step.1`."""
    parts = file.path.split("/")
    if parts[0] != WORK or len(parts) < 2:
        return "", None
    step, _, rest = parts[1].partition(".")
    name = parts[2] if len(parts) > 2 and not rest else rest
    return step, int(name) if name.isdecimal() else None


def _has_begun(store: Store, listing: Listing, kind: str, digest: str, *, is_there: bool) -> bool:
    """Whether somebody has begun a step, or finished one that was not there, since the store was listed."""
    step = f"{kind}-{digest}"
    listed = {number for file in listing.others for name, number in [_read_name(file)] if name == step}
    if set(store.leases.slots.numbers(step)) - listed:
        return True
    return not is_there and store.place.read_text(kind, digest) is not None


def _belongs_to(held: Collection[str], file: StoredFile) -> bool:
    return _read_name(file)[0] in held


def _list_named(store: Store, kind: str, digest: str) -> set[str] | None:
    """The files that an entry's record names, as paths below the entry; None where the record is none."""
    try:
        record = read_record(store.place.read_text(kind, digest) or b"")
    except Damaged:
        return None
    files = record["files"]
    return {RECORD, *files, *(f"{sha}/{name}" for name, sha in files.items())}


def _find_unreferred(store: Store, listing: Listing, referred: Collection[str]) -> list[EntrySize]:
    """The entries that nothing in `referred` leads to, old enough to belong to no run that goes on."""
    records = {}
    for entry in listing.entries:
        with suppress(Damaged):  # stays: whoever needs it will compute it again
            records[entry] = read_record(store.place.read_text(entry.kind, entry.digest) or b"")
    known, kept = set(referred), set[EntrySize]()
    while more := [entry for entry in records if entry not in kept and _is_referred(entry, records[entry], known)]:
        kept.update(more)
        known.update(digest for entry in more for digest in find_digests(records[entry]["inputs"]))
    young = time.time() - GRACE
    return [entry for entry in records if entry not in kept and entry.written < young]


def _is_referred(entry: EntrySize, record: Mapping[str, Any], known: Collection[str]) -> bool:
    """By its address, by the model or key that came of it, or, where none came, by the model that it describes."""
    facts = record["facts"] if isinstance(record["facts"], Mapping) else {}
    made = {facts[name] for name in ("model", "key") if isinstance(facts.get(name), str)}
    asked = {entry.digest, *(made or (() if entry.kind == "evidence" else find_digests(record["inputs"])))}
    return bool(asked & set(known))


def find_digests(value: Any) -> Iterator[str]:
    """Every text in a JSON value that could be a digest."""
    if isinstance(value, Mapping):
        for item in value.values():
            yield from find_digests(item)
    elif isinstance(value, list):
        for item in value:
            yield from find_digests(item)
    elif isinstance(value, str) and len(value) in (32, 64) and set(value) <= set("0123456789abcdef"):
        yield value
