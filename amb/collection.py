"""Collects what finished runs have left in an output folder into one document; nothing is computed again."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from amb.errors import BadParamsError, MissingError, StoreError
from amb.plugins import near_names

SCHEMA = 1


def collect(output: Path, sweep: str | None = None, runs: Sequence[str] = ()) -> dict[str, Any]:
    """`{"schema": 1, "runs": [...], "cells": [...]}` of all runs, of a sweep, or of the runs named.

    A cell that several runs have judged is taken from the latest of them. Raises MissingError where there is no
    run, BadParamsError where none has the name, StoreError where a file is damaged.
    """
    found = {folder.name: folder for folder in sorted((output / "runs").glob("*/")) if (folder / "run.json").exists()}
    if not found:
        raise MissingError(f"There are no results in {output}. Run something first, or give its folder: --output-dir.")
    for name in runs:
        if name not in found:
            raise BadParamsError(f"There is no run '{name}' in {output}.{near_names(name, found)}")
    headers = [_header(folder) for name, folder in found.items() if not runs or name in runs]
    if sweep is not None:
        names = sorted({header["sweep"] for header in headers if header.get("sweep")})
        headers = [header for header in headers if header.get("sweep") == sweep]
        if not headers:
            has = f"There are: {', '.join(names)}." if names else "No sweep has run there."
            raise BadParamsError(f"There is no sweep '{sweep}' in {output}.{near_names(sweep, names)} {has}")
    cells = {_identity(cell): cell for header in headers for cell in _cells(found[header["id"]], header)}
    return {"schema": SCHEMA, "runs": headers, "cells": list(cells.values())}


def _header(folder: Path) -> dict[str, Any]:
    """What is said of a run beside its cells."""
    try:
        header: dict[str, Any] = json.loads((folder / "run.json").read_text(encoding="utf-8"))["run"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{folder / 'run.json'} is damaged ({error}). Delete the folder, or run it again.") from None
    return header


def _cells(folder: Path, header: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The cells that a run finished, also one that was killed; a line cut short is left out."""
    path = folder / "results.jsonl"
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        try:
            cell = json.loads(line)
        except ValueError:
            continue
        where = {"suite": header["suite"], "owner": header["owner"], "sweep": header.get("sweep"), "run": header["id"]}
        yield {**cell, **where}


def _identity(cell: dict[str, Any]) -> tuple[Any, ...]:
    """What makes two cells the same question."""
    return tuple(cell[name] for name in ("suite", "owner", "method", "suspect", "attack", "kind", "seed"))
