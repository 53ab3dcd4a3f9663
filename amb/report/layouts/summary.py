"""Layouts `summary`: means over seeds, grouped by any columns; and `cells`: one row for each cell."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from operator import attrgetter
from typing import Final

from amb.errors import BadParamsError, near_names
from amb.evaluation.primary_utility import primary_utility
from amb.report.entries import count_entry, list_reasons, list_statuses, rate_entry
from amb.report.tables import Column, Table, TableEntry
from amb.results.aggregate import (
    average_over_seeds,
    count_claims,
    count_seeds,
    group_by,
    judged,
    mean,
    mean_seconds,
    usable,
)
from amb.results.records import CellRecord, JudgedRecord
from amb.results.result_set import ResultSet

Read = Callable[[CellRecord], TableEntry]
"""What a column holds of a cell."""


def _read_judged(read: Callable[[JudgedRecord], TableEntry]) -> Read:
    return lambda cell: read(cell) if isinstance(cell, JudgedRecord) else None


def _read_verdict(name: str) -> Read:
    return _read_judged(attrgetter(f"verdict.{name}"))


def _read_p_value(name: str) -> Read:
    return _read_judged(lambda cell: cell.verdict.p_values.get(name))


def _read_binomial(*, exact: bool) -> Read:
    """The binomial p-value of methods whose null is exact, or of the others, for which it is a heuristic."""
    return _read_judged(
        lambda cell: cell.verdict.p_values.get("binomial") if (cell.verdict.basis == "exact") == exact else None
    )


def _read_utility(name: str) -> Read:
    return lambda cell: cell.utility.get(name)


def _read_seconds(name: str) -> Read:
    return lambda cell: cell.seconds.get(name)


def _read_interval(end: int) -> Read:
    return _read_judged(lambda cell: cell.verdict.interval[end])


_GROUPS: Final[Mapping[str, Read]] = {
    **{name: attrgetter(name) for name in ("suite", "owner", "method", "attack", "suspect")},
    "kind": attrgetter("shown_kind"),
    **{name: attrgetter(name) for name in ("group", "source", "seed")},
    "tau": _read_verdict("tau"),
    **{name: attrgetter(name) for name in ("sweep", "run")},
}
"""Columns that the summary may be grouped by."""
DEFAULT_GROUPS: Final = ("suite", "owner", "method", "suspect", "kind")
_VERDICT: Final = ("bit_error_rate", "bound", "alpha", "margin", "n_trials", "n_negatives")
_ASKED: Final = (
    "suite",
    "owner",
    "method",
    "attack",
    "suspect",
    "kind",
    "sibling",
    "group",
    "source",
    "seed",
    "status",
)
_FLAT: Final[Mapping[str, Read]] = {
    **{name: attrgetter(name) for name in _ASKED},
    **{name: _read_verdict(name) for name in ("claim", "p_value", "basis", "level", "n_sources", "paper_rule")},
    "detection_rate": _read_verdict("detection_rate"),
    "interval_low": _read_interval(0),
    "interval_high": _read_interval(1),
    "tau": _read_verdict("tau"),
    **{name: _read_verdict(name) for name in _VERDICT},
    **{f"p_{name}": _read_p_value(name) for name in ("permutation", "calibrated")},
    "p_binomial": _read_binomial(exact=True),
    "p_heuristic": _read_binomial(exact=False),
    **{f"utility_{name}": _read_utility(name) for name in ("knn", "probe", "miou", "head_accuracy", "head_miou")},
    **{name: attrgetter(name) for name in ("utility_drop", "destroyed")},
    **{f"seconds_{name}": _read_seconds(name) for name in ("embed", "attack", "extract")},
    **{name: attrgetter(name) for name in ("peak_memory_mib", "cached", "reason", "sweep", "run")},
}
"""Columns of the layout `cells`."""
_FIRST: Final = ("method", "suspect", "seed", "status", "claim", "detection_rate")
"""Those of them that a narrow terminal keeps."""


def summary(results: ResultSet, by: Sequence[str] = DEFAULT_GROUPS) -> list[Table]:
    """One row for each group. Raises BadParamsError for a column that there is none of."""
    _check_groups(by)
    cells = results.cells
    shown = [name for name in by if name not in ("suite", "owner") or len({_GROUPS[name](cell) for cell in cells}) > 1]
    groups = group_by(cells, lambda cell: tuple(_GROUPS[name](cell) for name in shown))
    columns = [
        *(Column(name, text=True, priority=2 if name == "kind" and "suspect" in shown else 1) for name in shown),
        Column("seeds", priority=3),
        Column("R(τ)"),
        Column("claimed", text=True),
        Column("destroyed", text=True, priority=2),
    ]
    columns += [Column("BER", priority=3), Column("utility", priority=2)]
    columns += [Column(f"{step} s", seconds=True, priority=3) for step in ("attack", "extract")]
    rows = [[*key, *_make_figures(members)] for key, members in groups.items()]
    where = ", ".join(sorted({cell.place for cell in cells}))
    notes = [*_explain_figures(cells), *list_reasons(cells)]
    return [Table(f"{len(cells)} cells of {where}", columns, rows, notes)]


def flat(results: ResultSet) -> list[Table]:
    """One row for each cell, with every figure: for spreadsheets and pandas."""
    columns = [
        Column(name, text=name in _GROUPS or name in ("status", "reason"), priority=1 if name in _FIRST else 2)
        for name in _FLAT
    ]
    rows = [[read(cell) for read in _FLAT.values()] for cell in results.cells]
    return [Table("cells", columns, rows)]


def _check_groups(by: Sequence[str]) -> None:
    for name in by:
        if name not in _GROUPS:
            known = f"There are: {', '.join(_GROUPS)}."
            raise BadParamsError(f"There is no column '{name}' to group by.{near_names(name, _GROUPS)} {known}")


def _make_figures(cells: Sequence[CellRecord]) -> list[TableEntry]:
    known = judged(cells)
    if not known:
        return [count_seeds(cells), None, list_statuses(cells), None, None, None, None, None]
    return [
        count_seeds(known),
        rate_entry(known),
        count_entry(count_claims(known), known),
        count_entry(n_destroyed, known) if (n_destroyed := len(known) - len(usable(known))) else None,
        mean(cell.verdict.bit_error_rate for cell in known),
        _describe_utility(known),
        mean_seconds(known, "attack"),
        mean_seconds(known, "extract"),
    ]


def _describe_utility(cells: Sequence[CellRecord]) -> str | None:
    """The mean utility in one figure, where it is the same figure of all cells."""
    found = [figure for cell in cells if (figure := primary_utility(cell.utility))]
    names = {name for name, _ in found}
    average = average_over_seeds(value for _, value in found)
    return f"{names.pop()} {average.value:.3f}" if len(names) == 1 and average else None


def _explain_figures(cells: Sequence[CellRecord]) -> list[str]:
    if not judged(cells):
        return []
    return [
        "R(τ): mean over seeds; interval of Korn and Graubard over trials in seeds, 95 %.",
        "claimed: p at most the level, exact or by rank among sources of innocent models; in how many cells, and on a negative or a sibling that is a false claim.",
    ]
