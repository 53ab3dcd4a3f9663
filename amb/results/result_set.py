"""Finished runs as values: a document of one run, or of many, parsed once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from amb.results.aggregate import group_by
from amb.results.collect import as_collected
from amb.results.records import CellRecord, parse_cell
from amb.results.run_records import RunRecord, parse_run
from amb.results.thieves import Thieves

if TYPE_CHECKING:
    from amb.api.interfaces import DescribeAttack


def _describe_nothing(_: str) -> None:
    return None


@dataclass(frozen=True)
class ResultSet:
    """Finished runs: what is said of each, and every cell once."""

    runs: Sequence[RunRecord]
    cells: Sequence[CellRecord]
    about: str = ""
    """Suite and owner, where all cells are of one."""
    thieves: Thieves = field(default_factory=lambda: Thieves(_describe_nothing))
    """Who attacked: known where installed plugins say it."""

    def with_cells(self, cells: Sequence[CellRecord]) -> ResultSet:
        """The same runs with some of the cells."""
        return replace(self, cells=cells)

    def split_owners(self) -> Iterator[ResultSet]:
        """The results of each suite and owner: figures of different models are never averaged."""
        for key, cells in group_by(self.cells, lambda cell: (cell.suite, cell.owner)).items():
            runs = [run for run in self.runs if (run.suite, run.owner) == key]
            yield ResultSet(runs, cells, cells[0].place, self.thieves)


def parse_results(document: Mapping[str, Any], describe: DescribeAttack = _describe_nothing) -> ResultSet:
    """The results of a document of one run, or of many; of any readable schema. `describe` says what attackers know."""
    collected = as_collected(document)
    runs = [parse_run(run) for run in collected["runs"]]
    return ResultSet(runs, [parse_cell(cell) for cell in collected["cells"]], thieves=Thieves(describe))
