"""A line of results that was changed, moved or lost is named and left out; it never changes a table in silence."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amb.errors import AmbError, StoreError
from amb.plugin.manager import Manager
from amb.report.layouts import with_tables
from amb.results.bundle import own_runs
from amb.results.collect import collect
from amb.results.lines import parse_line, read_lines, write_line, write_lines
from tests.conftest import run_toy
from tests.results.test_bundle import make_store

CELL: Final = {
    "status": "ok",
    "kind": "negative",
    "attack": "prune40",
    "detection_rate": 0.875,
    "utility": {"knn": 0.5},
}
OTHER: Final = {**CELL, "attack": "prune20"}


def test_a_line_gives_its_cell_back() -> None:
    assert parse_line(write_line(CELL, "r", 7).strip(), "r") == (7, CELL)


@given(st.data())
def test_any_changed_letter_is_noticed(data: st.DataObject) -> None:
    line = write_line(CELL, "r", 1).strip()
    at = data.draw(st.integers(0, len(line) - 1))
    letter = data.draw(st.characters(min_codepoint=32, max_codepoint=126).filter(lambda each: each != line[at]))
    _, found = parse_line(line[:at] + letter + line[at + 1 :], "r")
    assert found is None or found == CELL  # white space between tokens means nothing


@pytest.mark.parametrize(("old", "new"), [("negative", "positive"), ("prune40", "prune20"), ("0.875", "0.975")])
def test_words_that_were_exchanged_are_named(tmp_path: Path, old: str, new: str) -> None:
    path = tmp_path / "results.jsonl"
    lines = write_lines([CELL, CELL, CELL], "r").splitlines(keepends=True)
    path.write_text(lines[0] + lines[1].replace(old, new) + lines[2])
    assert read_lines(path, "r") == ([CELL, CELL], [2])


def test_lines_that_were_lost_moved_doubled_or_are_another_runs(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    first, second, third = write_lines([CELL, OTHER, CELL], "r").splitlines(keepends=True)
    path.write_text(third + second + second + first)
    assert read_lines(path, "r", 3) == ([CELL, OTHER, CELL], [])
    path.write_text(first + third)
    assert read_lines(path, "r") == ([CELL, CELL], [2])
    path.write_text(first)
    assert read_lines(path, "r", 3) == ([CELL], [2, 3])
    assert read_lines(path, "r") == ([CELL], []), "a killed run does not say how many there would have been"
    path.write_text(first + write_line(OTHER, "another", 2))
    assert read_lines(path, "r") == ([CELL], [2])
    path.unlink()
    assert read_lines(path, "r", 2) == ([], [1, 2])


def test_a_line_cut_short_by_a_kill_is_no_damage(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    path.write_text(write_line(CELL, "r", 1) + write_line(CELL, "r", 2)[:40])
    assert read_lines(path, "r") == ([CELL], [])
    assert read_lines(path, "r", 2) == ([CELL], [2])


def test_a_folder_in_its_place_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "results.jsonl").mkdir()
    with pytest.raises(StoreError, match="cannot be read"):
        read_lines(tmp_path / "results.jsonl", "r")


def test_what_is_nested_too_deeply_is_no_cell(tmp_path: Path) -> None:
    deep: object = 1
    for _ in range(40):
        deep = [deep]
    (tmp_path / "results.jsonl").write_text(write_line({**CELL, "report": {"a": deep}}, "r", 1))
    assert read_lines(tmp_path / "results.jsonl", "r") == ([], [1])


# Eighty damaged files


def damage(path: Path, other: Path, kind: str, drawn: random.Random) -> None:
    """Do to a file what disks, editors and people do."""
    data = bytearray(path.read_bytes())
    lines, others = path.read_text().splitlines(keepends=True), other.read_text().splitlines(keepends=True)
    at = drawn.randrange(len(lines))
    if kind == "bit":
        data[drawn.randrange(len(data))] ^= 1 << drawn.randrange(8)
        path.write_bytes(data)
    elif kind == "cut":
        path.write_bytes(data[: drawn.randrange(len(data))])
    elif kind == "swap":
        lines[at], others[at] = others[at], lines[at]
        path.write_text("".join(lines))
        other.write_text("".join(others))
    elif kind == "delete":
        path.write_text("".join(lines[:at] + lines[at + 1 :]))
    elif kind == "word":
        old, new = drawn.choice([("negative", "positive"), ("positive", "negative"), ("good", "innocent 0")])
        path.write_text(path.read_text().replace(f'"{old}"', f'"{new}"'))
    else:
        path.unlink()
        path.mkdir()


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two finished runs, of two owners, so that a line in the wrong one would change a table."""
    output = tmp_path_factory.mktemp("eighty") / "out"
    make_store(output, run="20260101-000000-000000-aaaaaa")
    second = make_store(output.with_name("other"), run="20260102-000000-000000-bbbbbb", names=("good", "fair"))
    shutil.copytree(second, output, dirs_exist_ok=True)
    return output


KINDS: Final = ("bit", "cut", "swap", "delete", "word", "folder")
N_DAMAGED: Final = 80


def test_of_eighty_damaged_files_none_changes_a_table_or_is_exported_in_silence(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Twenty-six gave other results, of which twenty-four were exported and called verified elsewhere."""
    whole = json.dumps(with_tables(collect(store), "cells"))
    named = 0
    for number in range(N_DAMAGED):
        output = tmp_path / str(number)
        shutil.copytree(store, output)
        path, other = sorted(output.glob("runs/*/results.jsonl"))
        damage(path, other, KINDS[number % len(KINDS)], random.Random(number))
        try:
            is_same = json.dumps(with_tables(collect(output), "cells")) == whole
            said = capsys.readouterr().err
        except AmbError as error:
            is_same, said = False, str(error)
        assert is_same or ("results.jsonl" in said and len(said.strip().splitlines()) <= 2), (number, said)
        if "results.jsonl" in said:
            named += 1
            with pytest.raises(AmbError, match=r"results\.jsonl"):
                own_runs(output)
    assert named > N_DAMAGED * 3 // 4


def test_run_json_is_sealed_too(manager: Manager, tmp_path: Path) -> None:
    run = run_toy(manager, tmp_path)
    path = run.folder / "run.json"
    path.write_text(path.read_text().replace('"alpha": 0.05', '"alpha": 0.01'))
    with pytest.raises(StoreError, match=r"run\.json is damaged \(it was changed since it was written\)"):
        collect(tmp_path)


def test_a_report_names_the_line_and_the_same_run_makes_it_again(
    manager: Manager, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = run_toy(manager, tmp_path)
    whole = collect(tmp_path)["cells"]
    path = run.folder / "results.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([lines[0].replace('"negative"', '"positive"'), *lines[1:]]))
    left = collect(tmp_path)["cells"]
    assert "line 1: changed or lost since it was written, so left out" in capsys.readouterr().err
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


def test_a_run_that_is_nested_too_deep_is_refused_in_one_line(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "r0"
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(
        json.dumps({"schema": 2, "run": {"id": "r0", "suite": "t", "owner": "o", "x": nested(900)}})
    )
    with pytest.raises(StoreError, match="is damaged .*nest"):
        collect(tmp_path)
