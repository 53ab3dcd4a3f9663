"""Collects what finished runs have left in an output folder into one document; nothing is computed again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from amb.errors import BadParamsError, MissingError, StoreError, near_names
from amb.results.document import is_sealed
from amb.results.latest import keep_latest
from amb.results.lines import Lines, read_lines, read_plain_lines, warn_of_damage
from amb.results.plain_json import parse_json
from amb.results.versions import READABLE, SCHEMA, list_readable, upgrade_cell
from amb.runtime.regular_files import read_file

_QUESTION: Final = ("suite", "owner", "method", "suspect", "attack", "kind", "seed")
"""What makes two cells the same question."""


@dataclass(frozen=True)
class StoredRun:
    """A run as it lies in an output folder."""

    folder: Path
    schema: int
    facts: Mapping[str, Any]
    """What is said of it beside its cells."""
    n_cells: int
    """How many it had when it was finished; 0 where it was killed, or goes on."""

    @property
    def id(self) -> str:
        """Name of the run."""
        return str(self.facts["id"])

    def read_cells(self) -> list[dict[str, Any]]:
        """The cells that it finished, each once, as they lie there; a killed run's too, a line cut short is left out."""
        where, found = _list_shared(self.facts), self.read_lines()
        if found.damaged:
            warn_of_damage(self.lines_path, found.damaged)
        return _keep_latest({**cell, **where} for cell in found.cells)

    def read_lines(self) -> Lines:
        """The lines of its file, and which of them are damaged."""
        return (
            read_lines(self.lines_path, self.id, self.n_cells)
            if self.schema >= 2
            else read_plain_lines(self.lines_path)
        )

    @property
    def lines_path(self) -> Path:
        """Where its cells lie, a line each."""
        return self.folder / "results.jsonl"


def collect(output: Path, sweep: str | None = None, runs: Sequence[str] = ()) -> dict[str, Any]:
    """`{"schema": 2, "runs": [...], "cells": [...]}` of all runs, of a sweep, or of the runs named.

    A cell that several runs have judged is taken from the latest of them. Raises MissingError where there is no
    run, BadParamsError where none has the name, StoreError where a file is damaged or of a newer schema.
    """
    return collect_runs(find_runs(output, sweep, runs))


def collect_runs(found: Sequence[StoredRun]) -> dict[str, Any]:
    """As `collect`, of runs that were found, the oldest first."""
    cells = _keep_latest(upgrade_cell(cell) for run in found for cell in run.read_cells())
    return {"schema": SCHEMA, "runs": [dict(run.facts) for run in found], "cells": cells}


def find_runs(output: Path, sweep: str | None = None, runs: Sequence[str] = ()) -> list[StoredRun]:
    """All runs of an output folder, those of a sweep, or those named, the oldest first. Raises as `collect`."""
    folders = [folder for folder in sorted((output / "runs").glob("*/")) if (folder / "run.json").exists()]
    if not folders:
        raise MissingError(f"There are no results in {output}. Run something first, or give its folder: --output-dir.")
    found = [open_run(folder) for folder in folders]
    known = [run.id for run in found]
    for name in runs:
        if name not in known:
            raise BadParamsError(f"There is no run '{name}' in {output}.{near_names(name, known)}")
    named = [run for run in found if not runs or run.id in runs]
    return named if sweep is None else _select_sweep(named, sweep, output)


def merge_documents(documents: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """One document of several collected ones, with `sources`: for each run the names of those that it is in.

    A run that is in several counts once, and so does a cell: of its verdicts that of the latest run.
    """
    runs: dict[str, Mapping[str, Any]] = {}
    sources: dict[str, list[str]] = {}
    for name, document in documents.items():
        for run in document["runs"]:
            runs[run["id"]] = run
            sources.setdefault(run["id"], []).append(name)
    cells = (cell for document in documents.values() for cell in document["cells"])
    latest = _keep_latest(sorted(cells, key=lambda cell: str(cell["run"])))
    return {"schema": SCHEMA, "runs": list(runs.values()), "cells": latest, "sources": sources}


def select_suite(document: Mapping[str, Any], suite: str) -> dict[str, Any]:
    """The runs and cells of one suite. Raises BadParamsError for one that there is none of."""
    suites = list(dict.fromkeys(str(cell["suite"]) for cell in document["cells"]))
    if suite not in suites:
        raise BadParamsError(
            f"There is no suite '{suite}' in these results.{near_names(suite, suites)} There are: {', '.join(suites)}."
        )
    return {**document, **{part: [each for each in document[part] if each["suite"] == suite] for part in _PARTS}}


def as_collected(document: Mapping[str, Any]) -> dict[str, Any]:
    """A document of one run in the shape of a collected one; a collected one as it is."""
    if "runs" in document:
        return dict(document)
    where = _list_shared(document["run"])
    cells = [{**where, **cell} for cell in document["cells"]]
    return {"schema": document["schema"], "runs": [document["run"]], "cells": cells}


_LARGEST: Final = 2**28
"""Bytes of a run.json, which repeats two hundred cells at most."""
_PARTS: Final = ("runs", "cells")


def _keep_latest(cells: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    return keep_latest(cells, lambda cell: tuple(cell[name] for name in _QUESTION), lambda cell: cell["status"] == "ok")


def _select_sweep(found: Sequence[StoredRun], sweep: str, output: Path) -> list[StoredRun]:
    chosen = [run for run in found if run.facts.get("sweep") == sweep]
    if chosen:
        return chosen
    names = sorted({run.facts["sweep"] for run in found if run.facts.get("sweep")})
    has = f"There are: {', '.join(names)}." if names else "No sweep has run there."
    raise BadParamsError(f"There is no sweep '{sweep}' in {output}.{near_names(sweep, names)} {has}")


def open_run(folder: Path) -> StoredRun:
    """A run without its cells. Raises StoreError where run.json is damaged or of a schema that is not read."""
    path = folder / "run.json"
    try:
        document = parse_json(read_file(path, _LARGEST))
        facts, schema, cells = document["run"], document.get("schema", 1), document.get("cells", [])
        why = "" if {"id", "suite", "owner"} <= set(facts) else "it does not say which run it is"
        if not isinstance(cells, list) or not is_sealed(document):
            why = "it was changed since it was written"
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        why = str(error)
    if why:
        raise StoreError(f"{path} is damaged ({why}). Delete the folder, or run it again.")
    if schema not in READABLE:
        raise StoreError(f"{path} is of schema {schema!s:.20}; this amb reads {list_readable()}. Install a newer amb.")
    said = facts.get("n_finished")
    return StoredRun(folder, schema, facts, said if isinstance(said, int) else len(cells))


def _list_shared(facts: Mapping[str, Any]) -> dict[str, Any]:
    """What a run says of all its cells."""
    return {"suite": facts["suite"], "owner": facts["owner"], "sweep": facts.get("sweep"), "run": facts["id"]}
