"""Layouts: from the cells of a document to tables. A layout chooses and averages; how it looks is the format's."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

from amb.errors import BadParamsError, unknown_name
from amb.report.layouts import negatives, paper, robustness, summary, suspects
from amb.report.layouts.cells import group
from amb.report.tables import Table

LAYOUTS: Final[Mapping[str, Callable[[Mapping[str, Any]], list[Table]]]] = {
    "summary": summary.summary,
    "cells": summary.flat,
    "suspects": suspects.suspects,
    "robustness": robustness.robustness,
    "negatives": negatives.negatives,
    "paper-table1": paper.table1,
    "paper-table2": paper.table2,
    "paper-table3": paper.table3,
    "paper-figure2": paper.figure2,
    "paper-figure3": paper.figure3,
}
"""The layouts of `amb report`. That of `amb run` is `amb.report.layouts.run`."""


def with_tables(document: Mapping[str, Any], layout: str, by: Sequence[str] = ()) -> dict[str, Any]:
    """The document with its tables in a layout. Raises UnknownNameError, BadParamsError."""
    if layout not in LAYOUTS:
        raise unknown_name("layout", layout, LAYOUTS, "`amb report --help` shows all")
    if by and layout != "summary":
        raise BadParamsError(f"The layout {layout} has groups of its own. --group-by goes with --layout summary.")
    if layout in ("summary", "cells"):
        tables = (
            summary.summary(document, by or summary.DEFAULT_GROUPS) if layout == "summary" else summary.flat(document)
        )
    else:
        tables = [table for part in _by_owner(document) for table in LAYOUTS[layout](part)]
    return {**document, "tables": [table.to_json() for table in tables]}


def _by_owner(document: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The document of each suite and owner: figures of different models are never averaged."""
    for (suite, owner), cells in group(document["cells"], lambda cell: (cell["suite"], cell["owner"])).items():
        runs = [run for run in document["runs"] if (run["suite"], run["owner"]) == (suite, owner)]
        yield {**document, "runs": runs, "cells": cells, "about": f"{suite} ({owner})"}
