"""`--format table`: for the terminal, with colour and width from where it is shown."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from amb.api.interfaces import Reporter
from amb.report.tables import Table, tables_of
from amb.results.run_records import parse_run

if TYPE_CHECKING:
    import rich.table


class TableReporter(Reporter):
    """Each table with its notes, then where to look next."""

    name: ClassVar[str] = "table"

    def render(self, document: Mapping[str, Any]) -> str:
        from rich.console import Console

        console = Console(
            file=io.StringIO(), width=_find_width(), highlight=False, force_terminal=_find_colour(), no_color=None
        )
        for table in tables_of(document):
            console.print(_draw_table(table, console.width), soft_wrap=False)
            for note in table.notes:
                console.print(note, markup=False, soft_wrap=True)
            console.print()
        for name, where in _list_places(document).items():
            console.print(f"{name}: {where}", markup=False, soft_wrap=True)
        text: str = console.file.getvalue()  # type: ignore[attr-defined]
        return "\n".join(line.rstrip() for line in text.rstrip("\n").splitlines())


def _list_places(document: Mapping[str, Any]) -> dict[str, str]:
    """Where to look next, by name: the files of a run, and what observers say."""
    if "run" not in document:
        return {}
    run = parse_run(document["run"])
    return {"results": run.folder, **run.links}


def _draw_table(table: Table, width: int) -> rich.table.Table:
    from rich import box
    from rich.table import Table as RichTable
    from rich.text import Text

    texts = table.texts()
    longest = [max(map(len, column)) for column in zip(table.headers(), *texts, strict=True)]
    fits = sum(longest) + 3 * len(longest) <= width
    drawn = RichTable(box=box.SIMPLE_HEAD, title=Text(table.title), title_justify="left")
    for column, length in zip(table.columns, longest, strict=True):
        drawn.add_column(
            Text(column.name),
            justify="left" if column.text else "right",
            overflow="fold",
            no_wrap=fits,
            min_width=min(length, 8),
        )
    for row in texts:
        drawn.add_row(*(Text(entry) for entry in row))
    return drawn


def _find_width() -> int:
    """The terminal's; what goes to a file or a pipe is as wide as it has to be."""
    import shutil
    import sys

    return shutil.get_terminal_size((130, 24)).columns if sys.stdout.isatty() else 1000


def _find_colour() -> bool | None:
    """None lets rich follow NO_COLOR and FORCE_COLOR; text that goes to a pipe stays plain."""
    import os
    import sys

    if os.environ.get("NO_COLOR"):
        return False
    return True if sys.stdout.isatty() or os.environ.get("FORCE_COLOR") else None
