"""What lies in a store, without computing: for dry runs over ten thousands of cells."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from amb.store.entries import StoreEntry, find_address, read_facts
from amb.store.store import Make, Store, explain_errors


class NotStored(Exception):  # noqa: N818 (an answer, not an error)
    """Something was asked of a Lookup that is not there."""


class Lookup(Store):
    """A store that only says what is there: nothing is computed, written or removed.

    Nothing is checked either: damage is noticed, said and made good when an entry is used. The folders of its entries are
    there where the store is a folder of this machine.
    """

    def __init__(self, location: str | Path) -> None:
        super().__init__(location)
        self.list_digests = cache(self._list_digests)
        """The digests of a kind, listed once."""

    def get_or_make(self, kind: str, inputs: Mapping[str, Any], make: Make) -> StoreEntry:
        """The entry for `inputs`. Raises NotStored."""
        digest = find_address(kind, inputs)
        if digest not in self.list_digests(kind):
            raise NotStored(kind)
        with explain_errors(self.place, "read"):
            text = self.place.read_text(kind, digest)
        facts = read_facts(text or b"")
        if facts is None:
            raise NotStored(kind)
        return StoreEntry(digest, self.place.find_folder(kind, digest), facts, cached=True)

    def is_empty(self) -> bool:
        """Whether nothing at all is there, in one look."""
        with explain_errors(self.place, "read"):
            return not self.place.list_kinds()

    def _list_digests(self, kind: str) -> frozenset[str]:
        """What is there, in one look; most of what is asked of a new sweep is not."""
        with explain_errors(self.place, "read"):
            return self.place.list_digests(kind)
