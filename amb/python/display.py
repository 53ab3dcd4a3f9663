"""Tables and figures that show themselves, in a notebook and in a terminal."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from amb.report.tables import Table

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


class Tables(Sequence[Table]):
    """The tables of a layout."""

    def __init__(self, tables: Sequence[Table]) -> None:
        self._tables = list(tables)

    def __getitem__(self, at: int) -> Table:  # type: ignore[override]
        return self._tables[at]

    def __len__(self) -> int:
        return len(self._tables)

    def __iter__(self) -> Iterator[Table]:
        return iter(self._tables)

    def to_frame(self, at: int = 0) -> pd.DataFrame:
        """One of the tables as a pandas frame, an estimate in three columns."""
        import pandas as pd

        headers, rows = self._tables[at].flat()
        return pd.DataFrame(rows, columns=headers)

    def _repr_html_(self) -> str:
        from amb.report.formats.notebook import render_fragment

        return render_fragment(self._tables)

    def __str__(self) -> str:
        from amb.report.formats.table import TableReporter

        return TableReporter().render({"tables": [table.to_json() for table in self._tables]})

    __repr__ = __str__


@dataclass(frozen=True)
class Drawing:
    """A figure of finished runs."""

    figure: Figure
    """matplotlib's own, to change before it is saved."""

    def save(self, path: str | Path) -> Path:
        """Write it as .png, .svg or .pdf, with fonts inside the file. Raises BadParamsError."""
        from amb.report.figures import save

        save(self.figure, Path(path))
        return Path(path)

    def _repr_png_(self) -> bytes:
        from amb.report.figures.style import styled

        buffer = io.BytesIO()
        with styled():
            self.figure.savefig(buffer, format="png", dpi=160)
        return buffer.getvalue()
