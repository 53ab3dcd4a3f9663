"""What has run, as an object: a frame, tables, figures and verdicts; it shows itself in a notebook."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from amb.api.records import Verdict
from amb.api.types import SuspectKind
from amb.errors import BadParamsError
from amb.plugin.manager import manager
from amb.python.display import Drawing, Tables
from amb.report.layouts import DEFAULT, make_tables
from amb.report.layouts.compare import compare_all
from amb.report.layouts.run import make_run_tables
from amb.results import aggregate
from amb.results.collect import collect
from amb.results.records import CellRecord, JudgedRecord
from amb.results.result_set import ResultSet, parse_results
from amb.results.select import choose_methods

if TYPE_CHECKING:
    import pandas as pd


def load_results(
    output_dir: str | Path = "amb-results", *, sweep: str | None = None, runs: Sequence[str] = ()
) -> Results:
    """What has run before: all of an output folder, of one sweep, or of some runs; a cell's latest verdict counts.

    Raises MissingError where nothing has run there, BadParamsError for an unknown sweep or run.
    """
    output = Path(output_dir)
    return Results(collect(output, sweep, runs), output)


def compare(results: Results, *methods: str, kind: SuspectKind = "positive") -> Tables:
    """`results.compare(...)`: methods pair by pair, on the suspects that both were read on. Raises BadParamsError."""
    return results.compare(*methods, kind=kind)


class Results:
    """Finished cells of one run or of many, with everything that can be said of them; nothing is computed again."""

    def __init__(self, document: Mapping[str, Any], folder: Path, *, succeeded: bool | None = None) -> None:
        self.document = document
        """As `--format json` prints it, less its tables (docs/schema.md)."""
        self.folder = folder
        """Where the files lie: of the run, or of the whole output folder."""
        self.succeeded = bool(self.judged) and not self.failed if succeeded is None else succeeded
        """Whether no cell failed, and some were judged: the command line's exit code 0."""

    @cached_property
    def parsed(self) -> ResultSet:
        """The document as values: what is said of each run, and every cell."""
        return parse_results(self.document, manager().registry.describe_attack)

    @property
    def cells(self) -> Sequence[CellRecord]:
        """Every cell, skipped and failed ones too."""
        return self.parsed.cells

    @property
    def judged(self) -> list[JudgedRecord]:
        """The cells that have a verdict."""
        return aggregate.judged(self.cells)

    @property
    def failed(self) -> list[CellRecord]:
        """The cells that went wrong; `reason` says how."""
        return [cell for cell in self.cells if cell.status == "failed"]

    @property
    def verdicts(self) -> dict[tuple[str, str, int], Verdict]:
        """Every verdict by method, suspect and seed."""
        return {(cell.method, cell.suspect, cell.seed): cell.verdict for cell in self.judged}

    def verdict(self, suspect: str, method: str | None = None, seed: int | None = None) -> Verdict:
        """The verdict on a suspect such as `prune40`. Raises BadParamsError where there is none, or more than one."""
        found = [
            cell
            for cell in self.judged
            if cell.suspect == suspect and method in (None, cell.method, cell.method_name) and seed in (None, cell.seed)
        ]
        if len(found) == 1:
            return found[0].verdict
        if not found:
            there = ", ".join(dict.fromkeys(cell.suspect for cell in self.judged)) or "none"
            raise BadParamsError(f"There is no verdict on '{suspect}' here. Judged suspects: {there}.")
        among = "; ".join(f"method={cell.method!r}, seed={cell.seed}" for cell in found[:3])
        raise BadParamsError(f"There are {len(found)} verdicts on '{suspect}'. Say which: {among}.")

    def to_frame(self) -> pd.DataFrame:
        """A pandas frame, one row a cell: typed columns, intervals as two columns, a column for each figure of utility."""
        from amb.python.frame import make_frame

        return make_frame(self.cells)

    def table(self, layout: str = DEFAULT, by: Sequence[str] = ()) -> Tables:
        """The tables of a layout of `amb report`, or `run`, which is what `amb run` prints. Raises UnknownNameError."""
        made = make_run_tables(self.parsed) if layout == "run" else make_tables(self.parsed, layout, by)
        return Tables(made)

    def compare(self, *methods: str, kind: SuspectKind = "positive") -> Tables:
        """Every two of these methods, pair by pair on the suspects that both were read on: what `amb compare` prints.

        A method is a spec or a preset; without any, all are compared. One table for each suite and owner; differences are
        shares claimed, -1..1, the first method less the other. Raises BadParamsError for a method without results, for a
        single one, and where no two have been read on the same suspects.
        """
        return Tables(compare_all(self.parsed, choose_methods(self.parsed, methods, manager().registry), kind))

    def figure(self, kind: str) -> Drawing:
        """A figure of `amb figure`, such as `detection-curve`. Raises UnknownNameError, MissingError."""
        from amb.report.figures import draw

        return Drawing(draw(kind, self.parsed))

    def _choose_tables(self) -> Tables:
        return self.table("run" if "run" in self.document else DEFAULT)

    def _repr_html_(self) -> str:
        return self._choose_tables()._repr_html_()

    def __str__(self) -> str:
        return str(self._choose_tables())

    def __repr__(self) -> str:
        return f"<{len(self.cells)} cells, {len(self.judged)} judged, {len(self.failed)} failed, in {self.folder}>"
