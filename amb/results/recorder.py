"""Writes the files of a run as it goes on, as an observer of the same hooks as anybody's."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from amb.plugin.specs import hookimpl
from amb.results.driver import find_driver
from amb.results.lines import write_line

if TYPE_CHECKING:
    from amb.api.records import Cell, CellResult
    from amb.api.run import Run

MOST_REPEATED: Final = 200
"""Cells that run.json repeats; of a larger run they stand in results.jsonl alone."""
_NOTE: Final = "files"
"""Of the run's notes: what run.json held when it was last written."""


@hookimpl
def amb_run_started(run: Run) -> None:
    """Write run.json without cells, so that the results of a killed run say what they belong to."""
    _write_header(run)
    if driver := find_driver(run):
        driver.start(run.facts.get("jobs", 1))


@hookimpl
def amb_cell_started(run: Run, cell: Cell) -> None:
    """Say which cell a sweep is at."""
    if driver := find_driver(run):
        driver.note_begun(cell)


@hookimpl
def amb_cell_finished(run: Run, result: CellResult) -> None:
    """Append the cell to results.jsonl, so that a killed run leaves what it finished."""
    run.folder.mkdir(parents=True, exist_ok=True)
    with (run.folder / "results.jsonl").open("a", encoding="utf-8") as file:
        file.write(write_line(result.to_json(), run.id, run.n_finished))
    if run.notes.get(_NOTE) != _describe_known(run):
        _write_header(run)
    if driver := find_driver(run):
        driver.note_finished(result)


@hookimpl
def amb_run_finished(run: Run) -> None:
    """Write run.json, the document that `--format json` prints, less its tables."""
    _write_document(run)


def _write_document(run: Run) -> None:
    from amb.results.document import document

    known = document(run, with_cells=run.n_finished <= MOST_REPEATED)
    _write_json(run, {**known, "run": {**known["run"], "n_finished": run.n_finished}})


def _write_header(run: Run) -> None:
    """What is known so far beside the cells: a report of a run that goes on, or was killed, shows it."""
    from amb.results.document import document

    run.notes[_NOTE] = _describe_known(run)
    _write_json(run, document(run, with_cells=False))


def _describe_known(run: Run) -> tuple[bool, int]:
    """Whether the profile is there, and how many embeddings: what of a header comes in while a run goes on."""
    return run.profile is not None, len(run.embeddings)


def _write_json(run: Run, content: Mapping[str, Any]) -> None:
    run.folder.mkdir(parents=True, exist_ok=True)
    from amb.results.document import seal

    text = json.dumps(seal(content), indent=1, allow_nan=False)
    draft = run.folder / ".run.json"
    draft.write_text(text + "\n", encoding="utf-8")
    draft.replace(run.folder / "run.json")
