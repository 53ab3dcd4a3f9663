"""Layouts: from results to tables. A layout chooses and averages; how it looks is the format's."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from amb.api.digests import finite
from amb.errors import BadParamsError, unknown_name
from amb.report.layouts import choice, compare, matrix, negatives, paper, robustness, summary, suspects
from amb.report.tables import Table
from amb.results.result_set import ResultSet, parse_results

if TYPE_CHECKING:
    from amb.api.interfaces import DescribeAttack


@dataclass(frozen=True)
class Layout:
    """What `amb report` calls a choice of tables."""

    shows: str
    """What there is to see, on one line."""
    make: Callable[[ResultSet], list[Table]]
    takes_all: bool = False
    """Whether its tables hold several suites and owners; otherwise each has tables of its own."""


LAYOUTS: Final[Mapping[str, Layout]] = {
    "summary": Layout("means over seeds with intervals, grouped by --group-by", summary.summary, takes_all=True),
    "cells": Layout("one row for each cell, every figure", summary.flat, takes_all=True),
    "choice": Layout("which method for which access and thief", choice.choice),
    "suspects": Layout("AUC, ARUC, TPR at fixed FPR over suspects, with intervals", suspects.suspects),
    "robustness": Layout("what survives which attacks", robustness.robustness),
    "matrix": Layout("attacks, innocent models and forged keys beside all methods", matrix.matrix),
    "compare": Layout("every two methods on the same suspects, with exact tests", compare.compare),
    "negatives": Layout("false claims on innocent models by class, calibrated thresholds", negatives.negatives),
    "paper-table1": Layout("block ablation", paper.table1),
    "paper-table2": Layout("detection rates", paper.table2),
    "paper-table3": Layout("time of embed and extract", paper.table3),
    "paper-figure2": Layout("activation profile", paper.figure2),
    "paper-figure3": Layout("R(tau) by tau", paper.figure3),
}
"""The layouts of `amb report`. That of `amb run` is `amb.report.layouts.run`."""
DEFAULT: Final = "summary"
"""The layout where none is asked for."""


def with_tables(
    document: Mapping[str, Any], layout: str, by: Sequence[str] = (), describe: DescribeAttack = lambda _: None
) -> dict[str, Any]:
    """The document with its tables in a layout. `describe` says what attackers know. Raises UnknownNameError, BadParamsError."""
    return add_tables(document, make_tables(parse_results(document, describe), layout, by))


def add_tables(document: Mapping[str, Any], tables: Sequence[Table]) -> dict[str, Any]:
    """The document with these tables."""
    return {**document, "tables": [finite(table.to_json()) for table in tables]}


def make_tables(results: ResultSet, layout: str, by: Sequence[str] = ()) -> list[Table]:
    """The tables of results in a layout. Raises UnknownNameError, BadParamsError."""
    if layout not in LAYOUTS:
        raise unknown_name("layout", layout, LAYOUTS, "`amb report --help` shows all")
    if by and layout != DEFAULT:
        raise BadParamsError(f"The layout {layout} has groups of its own. --group-by goes with --layout {DEFAULT}.")
    if by:
        return summary.summary(results, by)
    chosen = LAYOUTS[layout]
    parts = [results] if chosen.takes_all else results.split_owners()
    return [table for part in parts for table in chosen.make(part)]
