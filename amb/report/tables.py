"""Tables as data: columns, rows and notes, which every format renders in its own way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from math import isnan
from typing import TYPE_CHECKING, Any

from amb.errors import printable

if TYPE_CHECKING:
    from amb.evaluation.statistics import Estimate

TableEntry = str | float | int | bool | None | Mapping[str, float | None]
"""A text, a number, nothing, or an estimate: `{"value": v, "low": l, "high": h}`."""


@dataclass(frozen=True)
class Column:
    """A column and how its numbers are written."""

    name: str
    digits: int = 3
    text: bool = False
    """Words, set to the left."""


@dataclass(frozen=True)
class Table:
    """A table before it is Markdown, LaTeX or anything else."""

    title: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[TableEntry]]
    notes: Sequence[str] = ()
    """What the figures rest on, one line each."""

    def to_json(self) -> dict[str, Any]:
        """The table as documents carry it."""
        return {**asdict(self), "columns": [asdict(column) for column in self.columns]}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Table:
        """The table that a document carries."""
        return cls(data["title"], [Column(**column) for column in data["columns"]], data["rows"], data["notes"])

    def headers(self) -> list[str]:
        """The names of the columns."""
        return [column.name for column in self.columns]

    def texts(self) -> list[list[str]]:
        """Every entry as people read it."""
        return [
            [show(entry, column.digits) for entry, column in zip(row, self.columns, strict=True)] for row in self.rows
        ]

    def flat(self) -> tuple[list[str], list[list[Any]]]:
        """Headers and raw values, an estimate in three columns: `R`, `R low`, `R high`."""
        wide = [any(isinstance(row[at], Mapping) for row in self.rows) for at in range(len(self.columns))]
        headers = [
            name
            for column, is_wide in zip(self.columns, wide, strict=True)
            for name in ([column.name, f"{column.name} low", f"{column.name} high"] if is_wide else [column.name])
        ]
        rows = [
            [value for entry, is_wide in zip(row, wide, strict=True) for value in _spread_entry(entry, is_wide)]
            for row in self.rows
        ]
        return headers, rows


def tables_of(document: Mapping[str, Any]) -> list[Table]:
    """The tables that a document carries."""
    return [Table.from_json(each) for each in document["tables"]]


def show(entry: TableEntry, digits: int = 3) -> str:
    """An entry as people read it: `0.930 (0.880–0.970)`, `1e-04`, `–` for nothing."""
    if entry is None:
        return "–"
    if isinstance(entry, Mapping):
        low, high = entry.get("low"), entry.get("high")
        ends = f" ({low:.{digits}f}–{high:.{digits}f})" if low is not None and high is not None else ""
        return show(entry["value"], digits) + ends
    if isinstance(entry, bool):
        return "yes" if entry else "no"
    if isinstance(entry, float):
        return f"{entry:.0e}" if 0 < abs(entry) < 0.5 * 10**-digits else f"{entry:.{digits}f}"
    return printable(str(entry))


def estimate(figure: Estimate | None) -> TableEntry:
    """A figure with its interval as an entry; ends that are not known are None, and so is a figure that is not."""
    if figure is None:
        return None
    low, high = (None if isnan(end) else end for end in (figure.low, figure.high))
    return {"value": figure.value, "low": low, "high": high}


def _spread_entry(entry: TableEntry, wide: bool) -> list[Any]:
    if isinstance(entry, Mapping):
        return [entry["value"], entry.get("low"), entry.get("high")]
    return [entry, None, None] if wide else [entry]
