"""Cells as a pandas frame: one row a cell, typed columns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import pandas as pd

from amb.results.records import CellRecord

_OF_THE_CELL: Final = (
    "suite",
    "owner",
    "method",
    "attack",
    "suspect",
    "kind",
    "group",
    "source",
    "status",
    "reason",
    "sweep",
    "run",
)
_TEXTS: Final = (*_OF_THE_CELL, "basis")
_WHOLE: Final = ("seed", "tau", "n_trials", "n_negatives", "n_sources", "alphabet")
_FLAGS: Final = ("sibling", "claim", "paper_rule", "destroyed", "cached")
_FIRST: Final = (
    "suite", "owner", "method", "attack", "suspect", "kind", "sibling", "group", "source", "seed", "status", "claim", "p_value",
    "basis", "level", "paper_rule",
    "detection_rate", "detection_rate_low", "detection_rate_high", "tau", "bit_error_rate", "bound", "alpha", "margin",
    "n_trials", "n_negatives",
)  # fmt: skip
_LAST: Final = ("peak_memory_mib", "cached", "reason", "sweep", "run")


def make_frame(cells: Sequence[CellRecord]) -> pd.DataFrame:
    """The frame of cells; a figure that a cell does not have is missing in its row."""
    rows = [_make_row(cell) for cell in cells]
    found = dict.fromkeys(name for row in rows for name in row)
    between = [name for name in found if name not in (*_FIRST, *_LAST)]
    frame = pd.DataFrame(rows, columns=[*_FIRST, *between, *_LAST])
    return frame.astype({name: _find_type(name) for name in frame.columns})


def _make_row(cell: CellRecord) -> dict[str, Any]:
    row: dict[str, Any] = {
        name: getattr(cell, name) for name in (*_OF_THE_CELL, "sibling", "seed", "destroyed", "cached")
    }
    if cell.verdict:
        verdict = vars(cell.verdict)
        row |= {name: value for name, value in verdict.items() if name not in ("interval", "curve", "p_values")}
        row["detection_rate_low"], row["detection_rate_high"] = cell.verdict.interval
        row |= {f"p_{name}": value for name, value in cell.verdict.p_values.items()}
    row |= {f"utility_{name}": value for name, value in cell.utility.items()}
    row |= {f"seconds_{name}": value for name, value in cell.seconds.items()}
    return row | {"utility_drop": cell.utility_drop, "peak_memory_mib": cell.peak_memory_mib}


def _find_type(name: str) -> str:
    if name in _TEXTS:
        return "string"
    return "Int64" if name in _WHOLE else "boolean" if name in _FLAGS else "float64"
