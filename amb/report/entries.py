"""How figures of cells become entries and notes of tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from amb.evaluation.primary_utility import primary_utility
from amb.report.tables import TableEntry, estimate
from amb.results.aggregate import average_rate
from amb.results.records import CellRecord, JudgedRecord

_MOST_NAMED: Final = 6
"""Suspects that a note names before it counts the rest."""


def interval_entry(cell: JudgedRecord) -> TableEntry:
    """R with its interval over trials."""
    low, high = cell.verdict.interval
    return {"value": cell.rate, "low": low, "high": high}


def rate_entry(cells: Iterable[CellRecord], tau: int | None = None) -> TableEntry:
    """Mean R over seeds with its interval; None where no cell has a verdict."""
    return estimate(average_rate(cells, tau))


def count_entry(n: int, cells: Sequence[CellRecord]) -> str:
    """Such as `2 of 3`."""
    return f"{n} of {len(cells)}"


def utility_text(utility: Mapping[str, float]) -> str | None:
    """Such as `acc 0.963`."""
    found = primary_utility(utility)
    return f"{found[0]} {found[1]:.3f}" if found else None


def list_statuses(cells: Iterable[CellRecord]) -> str:
    """What became of cells, such as `failed and skipped`."""
    return " and ".join(sorted({cell.status for cell in cells}))


def list_reasons(cells: Iterable[CellRecord]) -> list[str]:
    """Why cells have no verdict, each reason once, with the suspects and seeds that it holds for."""
    found: dict[tuple[str, str, str], dict[str, set[int]]] = {}
    for cell in cells:
        if cell.status != "ok":
            key = (cell.method_name, cell.status, _generalise_reason(cell))
            found.setdefault(key, {}).setdefault(cell.suspect, set()).add(cell.seed)
    return [
        f"{method} on {list_some(list(suspects))}: {status}: {why} (seed {_list_seeds(suspects)})"
        for (method, status, why), suspects in found.items()
    ]


def list_some(names: Sequence[str], most: int = _MOST_NAMED, between: str = "; ") -> str:
    """The first few of many."""
    more = len(names) - most
    return between.join(names[:most]) + (f" and {more} more" if more > 0 else "")


def _list_seeds(suspects: Mapping[str, set[int]]) -> str:
    return ", ".join(map(str, sorted(set().union(*suspects.values()))))


def _generalise_reason(cell: CellRecord) -> str:
    """The reason with `it` for the suspect, so that the same reason of many suspects is one line."""
    text = cell.reason
    for name in (cell.suspect, cell.source):
        text = text.replace(name, "it") if name else text
    return text
