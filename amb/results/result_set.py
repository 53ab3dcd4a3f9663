"""Finished runs as values: a document of one run, or of many, parsed once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from amb.results.aggregate import group_by
from amb.results.collect import as_collected
from amb.results.records import CellRecord, parse_cell
from amb.results.run_records import RunRecord, parse_run


@dataclass(frozen=True)
class ResultSet:
    """Finished runs: what is said of each, and every cell once."""

    runs: Sequence[RunRecord]
    cells: Sequence[CellRecord]
    about: str = ""
    """Suite and owner, where all cells are of one."""

    def with_cells(self, cells: Sequence[CellRecord]) -> ResultSet:
        """The same runs with some of the cells."""
        return replace(self, cells=cells)

    def split_owners(self) -> Iterator[ResultSet]:
        """The results of each suite and owner: figures of different models are never averaged."""
        for key, cells in group_by(self.cells, lambda cell: (cell.suite, cell.owner)).items():
            yield ResultSet([run for run in self.runs if (run.suite, run.owner) == key], cells, cells[0].place)


def parse_results(document: Mapping[str, Any]) -> ResultSet:
    """The results of a document of one run, or of many; of any readable schema."""
    collected = as_collected(document)
    return ResultSet([parse_run(run) for run in collected["runs"]], [parse_cell(cell) for cell in collected["cells"]])
