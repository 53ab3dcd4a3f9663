"""`--format table` and `wide`: for the terminal, with colour and width from where it is shown."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Final

from amb.api.interfaces import Reporter
from amb.report.entries import list_some
from amb.report.tables import Table, tables_of
from amb.results.run_records import parse_run
from amb.runtime.wording import count

if TYPE_CHECKING:
    import rich.table

MOST_ROWS: Final = 200
"""Rows of one table: drawing more takes minutes, and nobody reads them."""
_WHOLE: Final = 100_000
"""A width that nothing exceeds."""
_MOST_NAMED: Final = 8
"""Columns that are named where they are left out."""
_LEAST: Final = 2
"""Columns that stay in the narrowest terminal."""
_WIDEST: Final = 30
"""Letters of words that stay on one line where the width is scarce."""


class TableReporter(Reporter):
    """Each table with its notes, then where to look next; in a terminal the columns that fit, into a pipe all of them."""

    name: ClassVar[str] = "table"
    every_column: ClassVar[bool] = False
    """Whether all columns are shown, however narrow the terminal."""

    def render(self, document: Mapping[str, Any]) -> str:
        from rich.console import Console

        width = None if self.every_column else _find_width()
        console = Console(
            file=io.StringIO(), width=width or _WHOLE, highlight=False, force_terminal=_find_colour(), no_color=None
        )

        def say(line: str) -> None:
            console.print(line, markup=False, soft_wrap=width is None)

        for table in tables_of(document):
            _print_table(table, console, width, say)
        for name, where in _list_places(document).items():
            console.print(f"{name}: {where}", markup=False, soft_wrap=True)
        text: str = console.file.getvalue()  # type: ignore[attr-defined]
        return "\n".join(line.rstrip() for line in text.rstrip("\n").splitlines())


class WideReporter(TableReporter):
    """As `table`, with every column whatever the width."""

    name: ClassVar[str] = "wide"
    every_column: ClassVar[bool] = True


def _print_table(table: Table, console: Any, width: int | None, say: Any) -> None:
    """Title, what the table shows, the table, what was left out of it, and what it rests on."""
    shown = _choose_columns(table, width)
    cut = table.choose(shown, MOST_ROWS)
    say(table.title)
    for finding in table.findings:
        say(finding)
    console.print(_draw_table(cut, width), soft_wrap=False)
    for line in (*_list_cuts(table, shown), *table.notes):
        say(line)
    console.print()


def _choose_columns(table: Table, width: int | None) -> list[int]:
    """The places of the columns that fit, by priority and then from the left; the first two in any case.

    Columns that say nothing come last.
    """
    places = range(len(table.columns))
    if width is None:
        return list(places)
    texts = table.choose(places, MOST_ROWS).texts()
    empty = [bool(texts) and all(row[at] == "–" for row in texts) for at in places]
    kept: list[int] = []
    room = width - 1
    for at in sorted(places, key=lambda at: (empty[at], table.columns[at].priority)):
        size = _measure_column(table, at, [row[at] for row in texts]) + 3
        if size <= room or len(kept) < _LEAST:
            kept.append(at)
            room -= size
    return sorted(kept)


def _measure_column(table: Table, at: int, texts: Sequence[str]) -> int:
    """The width that a column needs: figures whole, words up to a bound, a header broken between its words."""
    column = table.columns[at]
    longest = max((len(text) for text in texts), default=0)
    words = max(map(len, column.heading.split()), default=0)
    return max(min(longest, _WIDEST) if column.text else longest, min(words, _WIDEST))


def _list_cuts(table: Table, shown: Sequence[int]) -> Iterator[str]:
    """What the table would have shown besides, and how to see it."""
    hidden = [column.heading for at, column in enumerate(table.columns) if at not in shown]
    if hidden:
        what = count(len(hidden), "column")
        yield f"Left out for want of width, {what}: {list_some(hidden, _MOST_NAMED, ', ')}. --wide shows all, and so does a pipe."
    n_more = len(table.rows) - MOST_ROWS
    if n_more > 0:
        yield f"The first {MOST_ROWS:,} of {len(table.rows):,} rows; --format csv holds all."


def _draw_table(table: Table, width: int | None) -> rich.table.Table:
    from rich import box
    from rich.table import Table as RichTable
    from rich.text import Text

    texts = table.texts()
    entries = [[row[at] for row in texts] for at in range(len(table.columns))]
    longest = [max(map(len, each), default=0) for each in entries]
    whole = sum(max(*each) + 3 for each in zip(longest, map(len, table.headings()), strict=True)) + 1
    fits = width is None or whole <= width
    drawn = RichTable(box=box.SIMPLE_HEAD)
    for at, column in enumerate(table.columns):
        drawn.add_column(
            Text(column.heading),
            justify="left" if column.text else "right",
            overflow="fold",
            no_wrap=fits,
            min_width=min(longest[at], 12 if column.text else 20),
            max_width=None if fits else max(longest[at], _measure_column(table, at, entries[at])),
        )
    for row in texts:
        drawn.add_row(*(Text(entry) for entry in row))
    return drawn


def _list_places(document: Mapping[str, Any]) -> dict[str, str]:
    """Where to look next, by name: the files of a run, what observers say, and what the words mean."""
    words = {"words": "amb explain WORD says what a column means"} if document["tables"] else {}
    if "run" not in document:
        return words
    run = parse_run(document["run"])
    return {"results": run.folder, **run.links, **words}


def _find_width() -> int | None:
    """The terminal's; what goes to a file or a pipe is as wide as it has to be."""
    import shutil
    import sys

    return shutil.get_terminal_size((130, 24)).columns if sys.stdout.isatty() else None


def _find_colour() -> bool | None:
    """None lets rich follow NO_COLOR and FORCE_COLOR; text that goes to a pipe stays plain."""
    import os
    import sys

    if os.environ.get("NO_COLOR"):
        return False
    return True if sys.stdout.isatty() or os.environ.get("FORCE_COLOR") else None
