"""The number of the documents' schema, and what documents of an older number call otherwise."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal, get_args

SCHEMA: Final = 2
"""Of every document that is written."""
Readable = Literal[1, 2]
READABLE: Final[tuple[int, ...]] = get_args(Readable)
"""Numbers of documents that are read."""
_RENAMED: Final = {"utility_lost": "utility_drop", "owned": "paper_rule"}
"""Keys of a cell in schema 1 that have another name since."""


def upgrade_cell(cell: Mapping[str, Any]) -> dict[str, Any]:
    """A cell of any readable schema with the keys of this one, in the order in which they stand."""
    if "claim" in cell and not any(name in cell for name in _RENAMED):
        return dict(cell)
    said = {_RENAMED.get(name, name): value for name, value in cell.items()}
    return said if "claim" in said else {**said, **_find_claim(said)}


def _find_claim(said: Mapping[str, Any]) -> dict[str, Any]:
    """The valid verdict of a cell of schema 1, which had none: its rank among all negatives, as it was written then."""
    known = said.get("p_values") is not None
    p_value: Any = said["p_values"]["calibrated"] if known else None
    level: Any = said.get("fpr_supported")
    n_negatives = said.get("n_negatives")
    return {
        "claim": bool(n_negatives) and p_value <= level + 1e-12 if known else None,
        "p_value": p_value,
        "basis": "calibrated" if known else None,
        "level": level,
        "n_sources": n_negatives,
        "alphabet": 2 if known else None,
    }


def list_readable() -> str:
    """The readable numbers as messages name them: `1 or 2`."""
    return " or ".join(map(str, READABLE))
