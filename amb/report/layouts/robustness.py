"""Layout `robustness`: which methods survive which attacks, over suspects that are still worth having."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from amb.evaluation.primary_utility import primary_utility
from amb.evaluation.statistics import clopper_pearson
from amb.report.layouts.cells import Cell, group, judged, mean_entry, rate_entry, reasons, usable
from amb.report.tables import Column, Entry, Table

_NOTES = (
    "destroyed: lost more of its utility than the suite tolerates, so it counts neither for nor against robustness.",
    "owned, of usable and of all: the paper's rule (eq. 13); the interval is Clopper-Pearson over suspects.",
    "above innocents: R exceeds that of every negative that was read, siblings included; what a calibrated p-value needs.",
)


def robustness(document: Mapping[str, Any]) -> list[Table]:
    """One table of rates for each method and family of attacks, one of every attack."""
    cells = [cell for cell in document["cells"] if cell["kind"] == "positive"]
    known = judged(cells)
    families = group(known, lambda cell: (str(cell["method"]), _family(cell)))
    rows = [[*key, *_rates(members)] for key, members in families.items()]
    totals = [[method, "all attacks", *_rates(members)] for method, members in _attacked(known).items()]
    columns = [Column("method", text=True), Column("family", text=True), Column("cells"), Column("destroyed")]
    columns += [Column("R(τ) of usable"), Column("owned, of usable", 2), Column("owned, of all", 2)]
    columns += [Column("above innocents, of usable", 2)]
    about = document["about"]
    return [
        Table(f"Robustness by family of attacks, {about}", columns, [*rows, *totals], [*_NOTES, *reasons(cells)]),
        Table(f"Every attack, {about}", _DETAIL, _details(known), ["lost: share of the protected model's utility."]),
    ]


_DETAIL = [
    Column("method", text=True),
    Column("attack", text=True),
    Column("seeds"),
    Column("R(τ)"),
    Column("owned", text=True),
    Column("utility"),
    Column("lost"),
    Column("destroyed", text=True),
    Column("attack s", 1),
]


def _details(cells: Sequence[Cell]) -> list[list[Entry]]:
    return [[*key, *_detail(members)] for key, members in _by_attack(cells).items()]


def _by_attack(cells: Sequence[Cell]) -> dict[tuple[str, str], list[Cell]]:
    return group(cells, lambda cell: (str(cell["method"]), str(cell["suspect"])))


def _detail(cells: Sequence[Cell]) -> list[Entry]:
    figures = [found for cell in cells if (found := primary_utility(cell["utility"]))]
    value = f"{figures[0][0]} {sum(each[1] for each in figures) / len(figures):.3f}" if figures else None
    return [
        len(cells),
        rate_entry(cells),
        f"{sum(cell['owned'] for cell in cells)} of {len(cells)}",
        value,
        _mean(round(lost, 3) for cell in cells if (lost := cell.get("utility_drop")) is not None),
        f"{len(cells) - len(usable(cells))} of {len(cells)}",
        sum(cell["seconds"]["attack"] for cell in cells) / len(cells),
    ]


def _mean(values: Any) -> Entry:
    entry = mean_entry(values)
    return entry["value"] if isinstance(entry, Mapping) else None


def _rates(cells: Sequence[Cell]) -> list[Entry]:
    kept = usable(cells)
    return [len(cells), len(cells) - len(kept), rate_entry(kept), _share(kept), _share(cells), _share(kept, _above)]


def _share(cells: Sequence[Cell], of: Any = lambda cell: cell["owned"]) -> Entry:
    """A share of cells with its interval; None where there are none."""
    if not cells:
        return None
    hits = sum(bool(of(cell)) for cell in cells)
    low, high = clopper_pearson(hits, len(cells))
    return {"value": hits / len(cells), "low": low, "high": high}


def _above(cell: Cell) -> bool:
    return cell["margin"] is not None and cell["margin"] > 0


def _attacked(cells: Sequence[Cell]) -> dict[str, list[Cell]]:
    return group([cell for cell in cells if cell["attack"] != "none"], lambda cell: str(cell["method"]))


def _family(cell: Cell) -> str:
    """The classes of attack in the chain."""
    return str(cell.get("group") or "unattacked")
