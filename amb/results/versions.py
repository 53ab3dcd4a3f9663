"""The number of the documents' schema, and what documents of an older number call otherwise."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal, get_args

SCHEMA: Final = 2
"""Of every document that is written."""
Readable = Literal[1, 2]
READABLE: Final[tuple[int, ...]] = get_args(Readable)
"""Numbers of documents that are read."""
_RENAMED: Final = {"utility_lost": "utility_drop"}
"""Keys of a cell in schema 1 that have another name since."""


def upgrade_cell(cell: Mapping[str, Any]) -> dict[str, Any]:
    """A cell of any readable schema with the keys of this one, in the order in which they stand."""
    return {_RENAMED.get(name, name): value for name, value in cell.items()}


def list_readable() -> str:
    """The readable numbers as messages name them: `1 or 2`."""
    return " or ".join(map(str, READABLE))
