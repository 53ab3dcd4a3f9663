"""Tables as data: columns, rows and notes, which every format renders in its own way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from math import isnan
from typing import TYPE_CHECKING, Any, Final

from amb.errors import printable

if TYPE_CHECKING:
    from amb.evaluation.intervals import Estimate

TableEntry = str | float | int | bool | None | Mapping[str, float | None]
"""A text, a number, nothing, or an estimate: `{"value": v, "low": l, "high": h}`."""


@dataclass(frozen=True)
class Column:
    """A column and how its numbers are written."""

    name: str
    digits: int = 3
    text: bool = False
    """Words, set to the left."""
    seconds: bool = False
    """A time in seconds, which people read as `0.02 s` or `3 min 20 s`; its name ends in ` s`, for who reads it raw."""
    priority: int = 1
    """What stays longest as a terminal gets narrower: 1, then 2, then 3."""

    @property
    def heading(self) -> str:
        """What stands above it where people read it: the unit is in the entries."""
        return self.name.removesuffix(" s") if self.seconds else self.name

    def show(self, entry: TableEntry) -> str:
        """An entry of it as people read it."""
        return show_seconds(entry) if self.seconds else show(entry, self.digits)


@dataclass(frozen=True)
class Table:
    """A table before it is Markdown, LaTeX or anything else."""

    title: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[TableEntry]]
    notes: Sequence[str] = ()
    """What the figures rest on, one line each."""
    findings: Sequence[str] = ()
    """What the table shows, in plain sentences: they stand above it."""

    def to_json(self) -> dict[str, Any]:
        """The table as documents carry it."""
        parts = {"title": self.title, "rows": self.rows, "notes": self.notes, "findings": self.findings}
        return {**parts, "columns": [asdict(column) for column in self.columns]}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Table:
        """The table that a document carries."""
        columns = [Column(**column) for column in data["columns"]]
        return cls(data["title"], columns, data["rows"], data["notes"], data.get("findings", ()))

    def headers(self) -> list[str]:
        """The names of the columns."""
        return [column.name for column in self.columns]

    def headings(self) -> list[str]:
        """What stands above the columns where people read them."""
        return [column.heading for column in self.columns]

    def choose(self, columns: Sequence[int], n_rows: int) -> Table:
        """The first rows of some of the columns, by their places."""
        rows = [[row[at] for at in columns] for row in self.rows[:n_rows]]
        return replace(self, columns=[self.columns[at] for at in columns], rows=rows)

    def texts(self) -> list[list[str]]:
        """Every entry as people read it."""
        return [[column.show(entry) for entry, column in zip(row, self.columns, strict=True)] for row in self.rows]

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


def show_seconds(entry: TableEntry) -> str:
    """A time as people read it: `0.02 s`, `12 s (10 s–14 s)`, `3 min 20 s`; texts, and nothing, as they are."""
    if isinstance(entry, Mapping):
        low, high = entry.get("low"), entry.get("high")
        ends = f" ({show_seconds(low)}–{show_seconds(high)})" if low is not None and high is not None else ""
        return show_seconds(entry["value"]) + ends
    if isinstance(entry, bool) or not isinstance(entry, int | float):
        return show(entry)
    if entry < 0:
        return f"-{show_seconds(-entry)}"
    if entry >= _LONG_TIME:
        return _show_long_time(round(entry))
    return "<0.001 s" if 0 < entry < 0.001 else f"{entry:.2g} s"


_LONG_TIME: Final = 99.5
"""Seconds that are told in minutes; below, two digits are enough."""


def _show_long_time(seconds: int) -> str:
    minutes, rest = divmod(seconds, 60)
    hours, left = divmod(minutes, 60)
    return f"{hours} h {left} min" if hours else f"{minutes} min {rest} s"


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
