"""Every word that a table sets before a reader is explained."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from amb.errors import UnknownNameError
from amb.report.glossary import TERMS, explain

ROOT = Path(__file__).parents[2]
FIGURES = ("R(τ)", "BER", "p perm.", "p calib.", "verdict", "utility", "seconds", "kind", "suspect")
"""The columns of `amb run`."""


@pytest.mark.parametrize(
    "word", [*FIGURES, "R(τ=5)", "r(tau)", "margin", "eq. 13", "swapped reads own", "TPR @ FPR .1"]
)
def test_a_word_of_the_tables_is_explained(word: str) -> None:
    assert explain(word).meaning.endswith(".")


def test_every_column_of_the_layouts_of_runs_is_explained() -> None:
    files = [ROOT / "amb/report/layouts" / f"{name}.py" for name in ("run", "robustness", "suspects", "negatives")]
    columns = {name for path in files for name in re.findall(r'Column\("([^"]+)"', path.read_text(encoding="utf-8"))}
    plain = {"method", "attack", "experiment", "model", "model type", "owner", "most"}
    assert len(columns) > 15
    for column in columns - plain:
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
