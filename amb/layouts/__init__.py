"""Layouts: from the cells of a document to tables. A layout chooses and averages; how it looks is the format's."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final

from amb.errors import BadParamsError
from amb.layouts import paper, run, summary, suspects
from amb.plugins import unknown_name
from amb.tables import Table

LAYOUTS: Final[Mapping[str, Callable[[Mapping[str, Any]], list[Table]]]] = {
    "summary": summary.summary,
    "cells": summary.flat,
    "suspects": suspects.suspects,
    "paper-table1": paper.table1,
    "paper-table2": paper.table2,
    "paper-table3": paper.table3,
    "paper-figure2": paper.figure2,
    "paper-figure3": paper.figure3,
}
"""The layouts of `amb report`. That of `amb run` is `run`."""


def with_tables(document: Mapping[str, Any], layout: str, by: Sequence[str] = ()) -> dict[str, Any]:
    """The document with its tables in a layout. Raises UnknownNameError, BadParamsError."""
    if layout == "run":
        return {**document, "tables": [table.to_json() for table in run.tables(document)]}
    if layout not in LAYOUTS:
        raise unknown_name("layout", layout, LAYOUTS, "`amb report --help` shows all")
    if by and layout != "summary":
        raise BadParamsError(f"The layout {layout} has groups of its own. --group-by goes with --layout summary.")
    make = partial(summary.summary, by=by) if by else LAYOUTS[layout]
    return {**document, "tables": [table.to_json() for table in make(document)]}
