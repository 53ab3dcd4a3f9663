"""Tables in a real terminal: nothing is wider than it, what matters stays, what was left out is said; a pipe gets all."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from amb.plugin.manager import Manager
from amb.report.formats.table import MOST_ROWS, TableReporter, WideReporter
from amb.report.tables import Column, Table, show_seconds
from tests.report.test_glossary import page_tables, printed_tables

pty = pytest.importorskip("pty", reason="this system has no terminals of that kind")
WIDTHS = (80, 100, 120)
SHOW = """
import fcntl, json, struct, sys, termios
from pathlib import Path
from amb.report.formats.table import TableReporter
found = json.loads(Path(sys.argv[1]).read_text())
shown = {}
for width in found["widths"]:
    fcntl.ioctl(1, termios.TIOCSWINSZ, struct.pack("HHHH", 50, width, 0, 0))
    shown[width] = [TableReporter().render({"tables": [table]}) for table in found["tables"]]
Path(sys.argv[2]).write_text(json.dumps(shown))
"""
LONG = Table(
    "Long",
    [Column("method", text=True), Column("R(τ)"), Column("claimed, of usable", 2), Column("notes", text=True, priority=2)],
    [["activemark:n_bits=32,n_triggers=128,steps=400,batch=64,n_images=512,loss=mse", {"value": 0.5, "low": 0.25, "high": 0.75}, 0.5, "x" * 300]],
    ["A note that is a good deal longer than a terminal of eighty columns is wide, so that it has to be broken somewhere."],
)  # fmt: skip


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> dict[int, list[str]]:
    """Every table as a process prints it whose standard output is a terminal of each width."""
    folder = tmp_path_factory.mktemp("width")
    asked, answer = folder / "asked.json", folder / "answer.json"
    tables = [table.to_json() for table in tables_to_show()]
    asked.write_text(json.dumps({"widths": WIDTHS, "tables": tables}), encoding="utf-8")
    above, below = pty.openpty()
    settings = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
    environment = {**settings, "NO_COLOR": "1", "TERM": "xterm"}
    subprocess.run([sys.executable, "-c", SHOW, str(asked), str(answer)], stdout=below, env=environment, check=True)
    os.close(above)
    os.close(below)
    return {int(width): texts for width, texts in json.loads(answer.read_text(encoding="utf-8")).items()}


def tables_to_show() -> list[Table]:
    return [*printed_tables(), *page_tables(), LONG]


@pytest.mark.parametrize("width", WIDTHS)
def test_no_line_is_wider_than_the_terminal(shown: dict[int, list[str]], width: int) -> None:
    wide = {line for text in shown[width] for line in text.splitlines() if len(line) > width}
    assert not wide


@pytest.mark.parametrize("width", WIDTHS)
def test_what_is_left_out_is_counted(shown: dict[int, list[str]], width: int) -> None:
    for table, text in zip(tables_to_show(), shown[width], strict=True):
        kept = [each for each in table.columns if each in find_kept(table, text)]
        assert len(kept) + count_left_out(text) >= len(table.columns), table.title
        assert ("--wide shows all" in " ".join(text.split())) == bool(count_left_out(text))


@pytest.mark.parametrize("width", WIDTHS)
def test_columns_of_the_first_priority_stay(shown: dict[int, list[str]], width: int) -> None:
    for table, text in zip(printed_tables(), shown[width], strict=False):
        gone = [each.name for each in table.columns if each.priority == 1 and each not in find_kept(table, text)]
        assert all(says_nothing(table, name) for name in gone), (table.title, gone)


def find_kept(table: Table, text: str) -> list[Column]:
    """The columns whose headings stand above the line."""
    head = text.partition("───")[0].removeprefix(table.title)
    return [each for each in table.columns if all(part in head for part in each.heading.split())]


def count_left_out(text: str) -> int:
    behind = " ".join(text.split()).partition("Left out for want of width, ")[2]
    return int(behind.split(" ")[0]) if behind else 0


def says_nothing(table: Table, name: str) -> bool:
    at = table.headers().index(name)
    return all(row[at] == "–" for row in table.texts())


def test_a_wider_terminal_shows_more(shown: dict[int, list[str]]) -> None:
    narrow, _, wide = (
        sum("Left out for want of width" in " ".join(text.split()) for text in shown[width]) for width in WIDTHS
    )
    assert 0 < wide < narrow


def test_a_pipe_and_wide_get_every_column() -> None:
    for table in tables_to_show():
        document = {"tables": [table.to_json()]}
        text = TableReporter().render(document)
        assert text == WideReporter().render(document)
        assert "Left out for want of width" not in text
        assert all(each.heading in text for each in table.columns)


@pytest.mark.parametrize("name", ["report", "leaderboard", "run", "sweep", "calibrate", "plan"])
def test_wide_is_a_format_of_every_command_that_prints_tables(name: str) -> None:
    from amb.cli import cli

    command = cli.get_command(None, name)  # type: ignore[arg-type]
    assert command is not None
    (option,) = [each for each in command.params if "--wide" in each.opts]
    (named,) = [each for each in command.params if "--format" in each.opts]
    assert (option.name, option.flag_value) == (named.name, "wide")  # type: ignore[attr-defined]
    assert "wide" in Manager().registry.reporters


def test_a_table_of_a_hundred_thousand_rows_is_cut_and_says_so() -> None:
    rows = [[f"s{n}", n / 1e5] for n in range(100_000)]
    text = TableReporter().render(
        {"tables": [Table("Many", [Column("suspect", text=True), Column("R(τ)")], rows).to_json()]}
    )
    assert f"The first {MOST_ROWS:,} of 100,000 rows; --format csv holds all." in text
    assert len(text.splitlines()) < MOST_ROWS + 20


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0 s"), (0.0004, "<0.001 s"), (0.02, "0.02 s"), (0.154, "0.15 s"), (2.34, "2.3 s"), (12.3, "12 s"), (99.6, "1 min 40 s"),
        (200.0, "3 min 20 s"), (3600, "1 h 0 min"), (9000.0, "2 h 30 min"), ("cached", "cached"), (None, "–"),
        ({"value": 12.0, "low": 10.0, "high": 14.0}, "12 s (10 s–14 s)"), ({"value": 12.0, "low": None, "high": None}, "12 s"),
    ],
)  # fmt: skip
def test_times_are_plain(seconds: Any, text: str) -> None:
    assert show_seconds(seconds) == text
    column = Column("extract s", seconds=True)
    assert (column.heading, column.show(seconds)) == ("extract", text)
