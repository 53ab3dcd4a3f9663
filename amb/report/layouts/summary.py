"""Layouts `summary`: means over seeds, grouped by any columns; and `cells`: one row for each cell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from amb.errors import BadParamsError, near_names
from amb.evaluation.primary_utility import primary_utility
from amb.report.layouts.cells import Cell, group, judged, kind_of, mean_entry, rate_entry, reasons, usable
from amb.report.tables import Column, Entry, Table

GROUPS: Final = (
    "suite",
    "owner",
    "method",
    "attack",
    "suspect",
    "kind",
    "group",
    "source",
    "seed",
    "tau",
    "sweep",
    "run",
)
DEFAULT_GROUPS: Final = ("suite", "owner", "method", "suspect", "kind")
_FLAT: Final = (
    "suite", "owner", "method", "attack", "suspect", "kind", "sibling", "group", "source", "seed", "status", "owned", "detection_rate",
    "interval_low", "interval_high", "tau", "bit_error_rate", "bound", "alpha", "margin", "n_trials", "n_negatives",
    "p_binomial", "p_permutation", "p_calibrated", "utility_knn", "utility_probe", "utility_miou",
    "utility_head_accuracy", "utility_head_miou", "utility_drop", "destroyed", "seconds_embed", "seconds_attack", "seconds_extract",
    "peak_memory_mib", "cached", "reason", "sweep", "run",
)  # fmt: skip


def summary(document: Mapping[str, Any], by: Sequence[str] = DEFAULT_GROUPS) -> list[Table]:
    """One row for each group. Raises BadParamsError for a column that there is none of."""
    for name in by:
        if name not in GROUPS:
            raise BadParamsError(f"There is no column '{name}' to group by.{near_names(name, GROUPS)} {_listing()}")
    cells = document["cells"]
    shown = [name for name in by if name not in ("suite", "owner") or len({cell[name] for cell in cells}) > 1]
    groups = group(cells, lambda cell: tuple(_value(cell, name) for name in shown))
    columns = [
        *(Column(name, text=True) for name in shown),
        Column("seeds"),
        Column("R(τ)"),
        Column("owned", text=True),
        Column("destroyed", text=True),
    ]
    columns += [Column("BER"), Column("utility"), Column("attack s", 1), Column("extract s", 2)]
    rows = [[*key, *_figures(members)] for key, members in groups.items()]
    where = ", ".join(sorted({f"{cell['suite']} ({cell['owner']})" for cell in cells}))
    notes = [*_how(cells), *reasons(cells)]
    return [Table(f"{len(cells)} cells of {where}", columns, rows, notes)]


def flat(document: Mapping[str, Any]) -> list[Table]:
    """One row for each cell, with every figure: for spreadsheets and pandas."""
    columns = [Column(name, text=name in GROUPS or name in ("status", "reason")) for name in _FLAT]
    rows = [[_flat_value(cell, name) for name in _FLAT] for cell in document["cells"]]
    return [Table("cells", columns, rows)]


def _figures(cells: Sequence[Cell]) -> list[Entry]:
    known = judged(cells)
    n_seeds = len({cell["seed"] for cell in known})
    if not known:
        statuses = " and ".join(sorted({cell["status"] for cell in cells}))
        return [len({cell["seed"] for cell in cells}), None, statuses, None, None, None, None, None]
    return [
        n_seeds,
        rate_entry(known),
        f"{sum(cell['owned'] for cell in known)} of {len(known)}",
        f"{n_destroyed} of {len(known)}" if (n_destroyed := len(known) - len(usable(known))) else None,
        sum(cell["bit_error_rate"] for cell in known) / len(known),
        _utility(known),
        sum(cell["seconds"]["attack"] for cell in known) / len(known),
        sum(cell["seconds"]["extract"] for cell in known) / len(known),
    ]


def _utility(cells: Sequence[Cell]) -> str | None:
    found = [figure for cell in cells if (figure := primary_utility(cell["utility"]))]
    names = {name for name, _ in found}
    mean = mean_entry(value for _, value in found)
    return f"{names.pop()} {mean['value']:.3f}" if len(names) == 1 and isinstance(mean, Mapping) else None


def _how(cells: Sequence[Cell]) -> list[str]:
    if not judged(cells):
        return []
    return [
        "R(τ): mean over seeds; interval of Korn and Graubard over trials in seeds, 95 %.",
        "owned: by the paper's rule (eq. 13), in how many cells; on a negative or a sibling that is a false claim.",
    ]


def _value(cell: Cell, name: str) -> Entry:
    value: Entry = kind_of(cell) if name == "kind" else cell.get(name)
    return value


def _flat_value(cell: Cell, name: str) -> Entry:
    """`interval_low`, `p_binomial` and the like stand inside the cell's own mappings."""
    if name in ("utility_drop", "destroyed"):
        known: Entry = cell.get(name)
        return known
    if name in ("interval_low", "interval_high"):
        return cell["interval"][name == "interval_high"] if cell["interval"] else None
    for prefix, inside in (("p_", "p_values"), ("utility_", "utility"), ("seconds_", "seconds")):
        if name.startswith(prefix):
            found: Entry = (cell[inside] or {}).get(name.removeprefix(prefix))
            return found
    value: Entry = cell.get(name)
    return value


def _listing() -> str:
    return f"There are: {', '.join(GROUPS)}."
