"""Every word that a table sets before a reader is explained."""

from __future__ import annotations

import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from amb.api.types import Fetch, ModelFacts
from amb.errors import UnknownNameError
from amb.execution.cost import MeasuredStep
from amb.plugin.manager import Manager
from amb.report.glossary import TERMS, explain
from amb.report.layouts import LAYOUTS, make_tables
from amb.report.layouts.cost import fetch_table, work_table
from amb.report.layouts.leaderboard import with_leaderboard
from amb.report.layouts.run import make_run_tables
from amb.report.page.build import sections_of
from amb.report.tables import Table, tables_of
from amb.results.result_set import parse_results
from amb.testing.reporter import example_document
from tests.report.test_page import synthetic

ROOT = Path(__file__).parents[2]
FIGURES = ("R(τ)", "BER", "p perm.", "p calib.", "verdict", "utility", "seconds", "kind", "suspect")
"""The columns of `amb run`."""
STEP = MeasuredStep(ModelFacts("toy/owner", 96, 6, 65, 96, 10), 10**6, 1e9, 0.01, 0.03, 100, 10, 8)


@pytest.mark.parametrize(
    "word", [*FIGURES, "R(τ=5)", "r(tau)", "margin", "eq. 13", "swapped reads own", "TPR @ FPR .1"]
)
def test_a_word_of_the_tables_is_explained(word: str) -> None:
    assert explain(word).meaning.endswith(".")


@cache
def printed_tables() -> tuple[Table, ...]:
    """A table of each kind that a terminal shows: of layouts, runs, leaderboard, and a plan."""
    found = synthetic()
    results = parse_results(found)
    board = with_leaderboard({"here": found}, Manager().registry)
    laid_out = [table for layout in LAYOUTS for table in make_tables(results, layout)]
    plan = [fetch_table([Fetch("weights of timm/x", "hub", None, cached=False)]), work_table([], STEP)]
    return (*laid_out, *make_run_tables(parse_results(example_document())), *tables_of(board), *plan)


@cache
def page_tables() -> tuple[Table, ...]:
    """Those of the HTML report."""
    sections = sections_of(synthetic(), lambda _: None)
    return tuple(
        table for each in sections for table in (*each.tables, *(table for part in each.parts for table in part.tables))
    )


def test_every_column_of_every_table_is_explained() -> None:
    columns = {
        name
        for table in (*printed_tables(), *page_tables())
        for each in table.columns
        for name in (each.name, each.heading)
    }
    methods = {"m0", "m1"}  # a column each in the paper's table 2
    assert len(columns) > 100
    for column in columns - methods:
        assert explain(column)


def test_a_word_stands_for_one_term() -> None:
    words = [word.casefold() for term in TERMS for word in {term.word, *term.others}]
    assert sorted(words) == sorted(set(words))


def test_an_unknown_word_is_met_with_its_neighbours() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean margin"):
        explain("margn")


def test_pages_exist() -> None:
    assert all((ROOT / term.page).exists() for term in TERMS)


def test_the_command_prints_an_entry() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "amb", "explain", "p", "calib."], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("p calib.\n  Calibrated p-value: the rank of the suspect")
