"""Writes the files of a run as it goes on, as an observer of the same hooks as anybody's."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from amb.errors import StoreError
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
    with _explaining(run):
        run.folder.mkdir(parents=True, exist_ok=True)
        _append(run.folder / "results.jsonl", write_line(result.to_json(), run.id, run.n_finished).encode())
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
    from amb.results.document import seal

    text = json.dumps(seal(content), indent=1, allow_nan=False)
    draft = run.folder / ".run.json"
    with _explaining(run):
        run.folder.mkdir(parents=True, exist_ok=True)
        draft.write_text(text + "\n", encoding="utf-8")
        draft.replace(run.folder / "run.json")


def _append(path: Path, line: bytes) -> None:
    """The whole line or nothing of it: half a line would take the next one with it. Raises OSError."""
    with path.open("ab", buffering=0) as file:
        before, written = file.tell(), 0
        try:
            written = file.write(line)
        finally:
            if written < len(line):
                file.truncate(before)
    if written < len(line):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@contextmanager
def _explaining(run: Run) -> Iterator[None]:
    """Results that cannot be kept end the run, for nobody would miss them later. Raises StoreError."""
    try:
        yield
    except OSError as error:
        raise StoreError(
            f"The results in {run.folder} cannot be written: {error.strerror}. Free space, and give the same command again: "
            "what is in the store is not computed anew."
        ) from None
