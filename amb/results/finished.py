"""Runs of a sweep that are whole already: what the same command need not go through again."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from amb.errors import AmbError
from amb.results.collect import StoredRun, open_run
from amb.results.lines import Lines


@dataclass(frozen=True)
class FinishedRun(StoredRun):
    """A stored run whose lines were looked at, and are kept until they are collected."""

    def read_lines(self) -> Lines:
        """The lines of its file, read once."""
        return self._lines

    @cached_property
    def _lines(self) -> Lines:
        return super().read_lines()

    def is_whole(self, evidence: Collection[str]) -> bool:
        """Whether every cell of the plan is there undamaged, none failed, some were judged and their evidence is kept."""
        if self.n_cells != self.facts.get("n_cells"):  # before the lines are read
            return False
        cells, damaged = self._lines
        statuses = {str(cell["status"]) for cell in cells}
        if damaged or len(cells) != self.n_cells or "failed" in statuses or "ok" not in statuses:
            return False
        return all(cell["digests"].get("evidence") in evidence for cell in cells if cell["status"] == "ok")


def find_finished(
    output: Path, sweep: str, plans: Collection[str], evidence: Collection[str]
) -> dict[str, FinishedRun]:
    """Of each plan that has one its latest whole run, by the digest of the plan; `evidence` is what the store holds."""
    found: dict[str, FinishedRun] = {}
    for folder in sorted((output / "runs").glob("*/"), reverse=True):
        run = _open_quietly(folder)
        plan: Any = run.facts.get("plan_digest") if run else None
        if run and plan in plans and plan not in found and run.facts.get("sweep") == sweep and run.is_whole(evidence):
            found[plan] = run
    return found


def _open_quietly(folder: Path) -> FinishedRun | None:
    """A run; None where there is none, or it is damaged: who collects it says so."""
    try:
        run = open_run(folder) if (folder / "run.json").exists() else None
    except AmbError:
        return None
    return FinishedRun(run.folder, run.schema, run.facts, run.n_cells) if run else None
