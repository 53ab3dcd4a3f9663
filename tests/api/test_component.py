"""Components: parameters from text, errors that help, canonical text, digests."""

from __future__ import annotations

import importlib
import math
import subprocess
import sys
from pathlib import Path
from typing import ClassVar

import pytest
from pydantic import Field

from amb.api.component import Component, parameter_rows, source_digest
from amb.api.digests import digest_of
from amb.errors import BadParamsError


class Knob(Component):
    """A component with one of everything."""

    kind: ClassVar[str] = "attack"
    name: ClassVar[str] = "knob"

    share: float = Field(0.4, ge=0, lt=1)
    """How far to turn."""
    times: int = Field(1, ge=1)
    """How often."""
    twice: bool = False
    """Again."""


def test_parameters_come_from_text() -> None:
    assert Knob.create({"share": "0.25", "times": "3", "twice": "true"}) == Knob(share=0.25, times=3, twice=True)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"share": "1.5"}, r"attack knob: share must be less than 1 \(got 1.5\). It takes share, times, twice."),
        ({"share": "nan"}, "share must be a finite number"),
        ({"share": "inf"}, "share must be a finite number"),
        ({"times": "0"}, "times must be greater than or equal to 1"),
        ({"times": "1.5"}, "times must be a valid integer"),
        ({"shar": "0.1"}, r"has no parameter 'shar'. Did you mean share\?"),
        ({"zzz": "0.1"}, r"has no parameter 'zzz'. It takes"),
    ],
)
def test_wrong_parameters_say_what_is_right(params: dict[str, str], message: str) -> None:
    with pytest.raises(BadParamsError, match=message):
        Knob.create(params)


def test_canonical_text_names_what_differs_from_the_default() -> None:
    assert Knob().canonical() == "knob"
    assert Knob(share=0.5, twice=True).canonical() == "knob:share=0.5,twice=true"
    assert "+" not in Knob(times=10**20).canonical()


def test_a_component_is_frozen() -> None:
    with pytest.raises(Exception, match="frozen"):
        Knob().share = 0.1  # type: ignore[misc]


def test_definition_covers_defaults_and_source() -> None:
    definition = Knob().definition()
    assert definition["parameters"] == {"share": 0.4, "times": 1, "twice": False}
    assert definition["source"]


def test_digest_ignores_key_order_and_refuses_nan() -> None:
    assert digest_of({"a": 1, "b": 2}) == digest_of({"b": 2, "a": 1})
    with pytest.raises(ValueError, match="JSON compliant"):
        digest_of(math.nan)


def test_rows_document_every_parameter() -> None:
    rows = parameter_rows(Knob)
    assert [row["parameter"] for row in rows] == ["share", "times", "twice"]
    assert rows[0]["range"] == "≥ 0, < 1"
    assert rows[0]["help"] == "How far to turn."


NOTEBOOK = """
from typing import ClassVar
import amb
def define(level):
    class Mine(amb.Attack):
        name = "mine"
        LEVEL: ClassVar = level
        def apply(self, model, ctx):
            return model.copy()
    Mine.__module__ = "__main__"
    return Mine
"""


def test_a_class_of_a_notebook_is_new_whenever_it_is_defined() -> None:
    """A constant, or a function that it calls, may have changed: an old result must not be taken for its own."""
    code = (
        f"{NOTEBOOK}\n"
        "one, same, other = define(1), define(1), define(2)\n"
        "digests = [cls().definition()['source'] for cls in (one, one, same, other)]\n"
        "print(len(digests), digests[0] == digests[1], len(set(digests)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["4", "True", "3"]


def test_a_class_of_a_script_is_known_by_the_script(tmp_path: Path) -> None:
    said = []
    for text in (NOTEBOOK, NOTEBOOK, NOTEBOOK + "# changed\n"):
        script = tmp_path / "mine.py"
        script.write_text(f"{text}\nprint(define(1)().definition()['source'])\n")
        said.append(subprocess.run([sys.executable, script], capture_output=True, text=True, check=True).stdout)
    assert said[0] == said[1] != said[2]


def test_sources_are_read_once_in_a_run_and_again_for_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a run finds belongs to the code that it began with, and hashing files for each of 10,000 cells took seconds."""
    path = tmp_path / "editable.py"
    path.write_text("class Edited: pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    cls = importlib.import_module("editable").Edited
    first = source_digest(cls)
    path.write_text("class Edited: 'more'\n")
    assert source_digest(cls) == first
    source_digest.cache_clear()
    assert source_digest(cls) != first
