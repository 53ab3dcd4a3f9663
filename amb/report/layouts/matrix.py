"""Layout `matrix`: attacks, innocent models and forgeries beside all methods: how each reads, and whether it is claimed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import Final

from amb.report.entries import count_entry, list_reasons
from amb.report.tables import Column, Table, TableEntry
from amb.results.aggregate import (
    by_method,
    by_suspect,
    count_claims,
    forged,
    group_by,
    judged,
    mean,
    negatives,
    positives,
    usable,
)
from amb.results.records import CellRecord, JudgedRecord
from amb.results.result_set import ResultSet

_READ: Final = "An entry is R(τ), the share of trials detected, or of right symbols where a method has one trial; the mean over seeds."
_ATTACK_NOTES: Final = (
    f"{_READ} *: claimed at every seed; where at some seeds, how many. †: destroyed at half of the seeds or more. –: not read.",
    "lost: percent of the protected model's utility, the median over methods.",
)
_CLASS_NOTES: Final = (
    f"How many are claimed. {_READ.removesuffix('; the mean over seeds.')}; the highest is in brackets.",
)
_FORGERY_NOTES: Final = ("How many innocent models are claimed by a key that was made up for them.",)


def matrix(results: ResultSet) -> list[Table]:
    """Three tables with a column for each method; those without rows are left out."""
    cells, about = results.cells, results.about
    methods = list(by_method(cells))
    attacks = [
        [name, _find_lost(judged(each)), *_spread(each, methods, _show_reading)]
        for name, each in by_suspect(positives(cells)).items()
    ]
    tables = [
        Table(
            f"Attacks, {about}",
            [Column("attack", text=True), Column("lost"), *_list_columns(methods)],
            attacks,
            [*_ATTACK_NOTES, *list_reasons(positives(cells))],
        ),
        _count_by("class", f"Innocent models, {about}", negatives(cells), methods, _show_highest, _CLASS_NOTES),
        _count_by("forgery", f"Forged keys, {about}", forged(cells), methods, _show_claims, _FORGERY_NOTES),
    ]
    return [table for table in tables if table.rows]


def _count_by(
    name: str,
    title: str,
    cells: Sequence[CellRecord],
    methods: Sequence[str],
    show: Callable[[Sequence[JudgedRecord]], str],
    notes: Sequence[str],
) -> Table:
    """A row for each group of innocent models."""
    groups = group_by(cells, lambda cell: cell.family or cell.suspect)
    rows = [[group, *_spread(each, methods, show)] for group, each in groups.items()]
    return Table(title, [Column(name, text=True), *_list_columns(methods)], rows, notes)


def _list_columns(methods: Sequence[str]) -> list[Column]:
    return [Column(method, text=True) for method in methods]


def _spread(
    cells: Sequence[CellRecord], methods: Sequence[str], show: Callable[[Sequence[JudgedRecord]], str]
) -> list[TableEntry]:
    """An entry for each method; None where it has no verdict."""
    found: Mapping[str, list[JudgedRecord]] = by_method(judged(cells))
    return [show(found[method]) if method in found else None for method in methods]


def _show_reading(cells: Sequence[JudgedRecord]) -> str:
    """Such as `1.00*`, `0.43 2 of 3`, `0.02†`."""
    n_claimed, n_destroyed = count_claims(cells), len(cells) - len(usable(cells))
    claimed = {0: "", len(cells): "*"}.get(n_claimed, f" {count_entry(n_claimed, cells)}")
    return f"{mean(map(_read, cells)):.2f}{claimed}{'†' if 2 * n_destroyed >= len(cells) else ''}"


def _show_highest(cells: Sequence[JudgedRecord]) -> str:
    return f"{_show_claims(cells)} ({max(map(_read, cells)):.2f})"


def _show_claims(cells: Sequence[JudgedRecord]) -> str:
    return count_entry(count_claims(cells), cells)


def _read(cell: JudgedRecord) -> float:
    """What the verdict rests on: R, or with an exact null the share of right symbols."""
    return 1 - cell.verdict.bit_error_rate if cell.verdict.basis == "exact" else cell.rate


def _find_lost(cells: Sequence[JudgedRecord]) -> TableEntry:
    """Percent of utility that an attack costs, the median over methods."""
    of_methods = [mean(cell.utility_drop for cell in each) for each in by_method(cells).values()]
    known = [100 * each for each in of_methods if each is not None]
    return round(median(known)) if known else None
