"""Collects what finished runs have left in an output folder into one document; nothing is computed again."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from amb.errors import BadParamsError, MissingError, StoreError, near_names

SCHEMA = 1
_QUESTION = ("suite", "owner", "method", "suspect", "attack", "kind", "seed")


def collect(output: Path, sweep: str | None = None, runs: Sequence[str] = ()) -> dict[str, Any]:
    """`{"schema": 1, "runs": [...], "cells": [...]}` of all runs, of a sweep, or of the runs named.

    A cell that several runs have judged is taken from the latest of them. Raises MissingError where there is no
    run, BadParamsError where none has the name, StoreError where a file is damaged.
    """
    folders = [folder for folder in sorted((output / "runs").glob("*/")) if (folder / "run.json").exists()]
    if not folders:
        raise MissingError(f"There are no results in {output}. Run something first, or give its folder: --output-dir.")
    found = {folder: _header(folder) for folder in folders}
    known = [header["id"] for header in found.values()]
    for name in runs:
        if name not in known:
            raise BadParamsError(f"There is no run '{name}' in {output}.{near_names(name, known)}")
    found = {folder: header for folder, header in found.items() if not runs or header["id"] in runs}
    if sweep is not None:
        names = sorted({header["sweep"] for header in found.values() if header.get("sweep")})
        found = {folder: header for folder, header in found.items() if header.get("sweep") == sweep}
        if not found:
            has = f"There are: {', '.join(names)}." if names else "No sweep has run there."
            raise BadParamsError(f"There is no sweep '{sweep}' in {output}.{near_names(sweep, names)} {has}")
    return {"schema": SCHEMA, "runs": list(found.values()), "cells": _latest(found)}


def as_collected(document: Mapping[str, Any]) -> dict[str, Any]:
    """A document of one run in the shape of a collected one; what old or foreign runs do not say is unknown."""
    runs = [{**_UNKNOWN, "embeddings": [], **run} for run in document.get("runs") or [document["run"]]]
    where = {"suite": runs[0]["suite"], "owner": runs[0]["owner"], "sweep": runs[0].get("sweep"), "run": runs[0]["id"]}
    return {"schema": document["schema"], "runs": runs, "cells": [{**where, **cell} for cell in document["cells"]]}


_UNKNOWN: Final = {
    "machine": {"system": "unknown", "architecture": "machine", "cpus": "unknown"},
    "device": "unknown device",
}


def _latest(found: Mapping[Path, dict[str, Any]]) -> list[dict[str, Any]]:
    """Each cell once: of its verdicts the latest, and a failure only where there is no verdict."""
    cells: dict[tuple[Any, ...], dict[str, Any]] = {}
    for folder, header in found.items():
        for cell in _cells(folder, header):
            before = cells.get(_identity(cell))
            if before is None or cell["status"] == "ok" or before["status"] != "ok":
                cells[_identity(cell)] = cell
    return list(cells.values())


def _header(folder: Path) -> dict[str, Any]:
    """What is said of a run beside its cells."""
    try:
        header: dict[str, Any] = json.loads((folder / "run.json").read_text(encoding="utf-8"))["run"]
        if {"id", "suite", "owner"} <= set(header):
            return header
        why = "it does not say which run it is"
    except (OSError, ValueError, KeyError, TypeError) as error:
        why = str(error)
    raise StoreError(f"{folder / 'run.json'} is damaged ({why}). Delete the folder, or run it again.")


def _cells(folder: Path, header: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The cells that a run finished, also one that was killed; a line cut short is left out."""
    path = folder / "results.jsonl"
    where = {"suite": header["suite"], "owner": header["owner"], "sweep": header.get("sweep"), "run": header["id"]}
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []:
        try:
            cell = json.loads(line)
        except ValueError:
            continue
        if isinstance(cell, dict) and set(_QUESTION) <= {*cell, *where} and "status" in cell:
            yield {**cell, **where}


def _identity(cell: dict[str, Any]) -> tuple[Any, ...]:
    """What makes two cells the same question."""
    return tuple(cell[name] for name in _QUESTION)
