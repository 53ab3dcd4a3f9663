"""A line of results that was changed is named and left out; it never changes a table in silence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amb.errors import StoreError
from amb.plugin.manager import Manager
from amb.results.bundle import _parse_json, _Refused
from amb.results.collect import collect
from amb.results.lines import parse_line, read_lines, write_line
from amb.testing.contracts import example_document
from tests.conftest import run_toy

CELL = {"status": "ok", "kind": "negative", "attack": "prune40", "detection_rate": 0.875, "utility": {"knn": 0.5}}


def test_a_line_gives_its_cell_back() -> None:
    assert parse_line(write_line(CELL).strip(), with_digest=True) == CELL


@given(st.data())
def test_any_changed_letter_is_noticed(data: st.DataObject) -> None:
    line = write_line(CELL).strip()
    at = data.draw(st.integers(0, len(line) - 1))
    letter = data.draw(st.characters(min_codepoint=32, max_codepoint=126).filter(lambda each: each != line[at]))
    changed = line[:at] + letter + line[at + 1 :]
    found = parse_line(changed, with_digest=True)
    assert found is None or found == CELL  # white space between tokens means nothing


@pytest.mark.parametrize(("old", "new"), [("negative", "positive"), ("prune40", "prune20"), ("0.875", "0.975")])
def test_words_that_were_exchanged_are_named(tmp_path: Path, old: str, new: str) -> None:
    path = tmp_path / "results.jsonl"
    path.write_text(write_line(CELL) + write_line(CELL).replace(old, new) + write_line(CELL))
    assert read_lines(path, with_digests=True) == ([CELL, CELL], [2])


def test_a_line_cut_short_by_a_kill_is_no_damage(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    path.write_text(write_line(CELL) + write_line(CELL)[:40])
    assert read_lines(path, with_digests=True) == ([CELL], [])


def test_a_folder_in_its_place_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "results.jsonl").mkdir()
    with pytest.raises(StoreError, match="cannot be read"):
        read_lines(tmp_path / "results.jsonl", with_digests=True)


def test_a_report_names_the_line_and_the_same_run_makes_it_again(
    manager: Manager, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = run_toy(manager, tmp_path)
    whole = collect(tmp_path)["cells"]
    path = run.folder / "results.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([lines[0].replace('"negative"', '"positive"'), *lines[1:]]))
    left = collect(tmp_path)["cells"]
    assert "line 1: changed since it was written, so left out" in capsys.readouterr().err
    assert left == whole[1:]
    run_toy(manager, tmp_path)
    again = {cell["suspect"]: cell for cell in collect(tmp_path)["cells"]}
    for cell in whole:
        same = ("kind", "detection_rate", "p_value", "claim", "digests")
        assert json.dumps([again[cell["suspect"]][name] for name in same]) == json.dumps([cell[name] for name in same])


def nested(depth: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(depth):
        value = {"a": value}
    return value


@pytest.mark.parametrize("depth", [100, 900])
def test_a_report_that_is_nested_too_deep_is_left_out_and_named(depth: int, tmp_path: Path, capsys: Any) -> None:
    """At 900 it passed the parser, and broke whatever went through it afterwards."""
    cell = {**example_document()["cells"][0], "suite": "toy", "owner": "o", "report": {"prune": nested(depth)}}
    line = json.dumps(cell)
    assert parse_line(line, with_digest=False) is None
    assert parse_line(json.dumps({**cell, "report": {"prune": nested(20)}}), with_digest=False) is not None
    folder = tmp_path / "runs" / "r0"
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps({"schema": 2, "run": {"id": "r0", "suite": "toy", "owner": "o"}}))
    (folder / "results.jsonl").write_text(line + "\n")
    assert collect(tmp_path)["cells"] == []
    assert "line 1: " in capsys.readouterr().err


def test_a_run_that_is_nested_too_deep_is_refused_in_one_line(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "r0"
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(
        json.dumps({"schema": 2, "run": {"id": "r0", "suite": "t", "owner": "o", "x": nested(900)}})
    )
    with pytest.raises(StoreError, match="nested more than 64 deep"):
        collect(tmp_path)


def test_a_bundle_that_is_nested_too_deep_is_refused() -> None:
    with pytest.raises(_Refused, match="cell is nested more than 64 deep"):
        _parse_json(json.dumps(nested(900)).encode(), "cell")
