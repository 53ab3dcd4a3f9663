"""A run as it goes on, as observers see it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from amb.api.plan import Plan
from amb.api.records import CellResult, EmbeddingFacts


@dataclass
class Run:
    """A run as it goes on; observers see it in the lifecycle hooks."""

    id: str
    plan: Plan
    output: Path
    """The output folder, shared by all runs: the store, the runs, MLflow's files."""
    facts: Mapping[str, Any]
    """Versions, plugins, machine, git commit."""
    sweep: str | None = None
    """Name of the sweep it belongs to."""
    _results: list[CellResult] = field(default_factory=list, repr=False)
    embeddings: list[EmbeddingFacts] = field(default_factory=list)
    """One for each method whose embedding is done."""
    profile: Mapping[str, Any] | None = None
    """Activation profile of the owner, where it has blocks."""
    profile_figure: Path | None = None
    links: dict[str, str] = field(default_factory=dict)
    """Where else to look, said by observers: an address or a command."""
    notes: dict[str, Any] = field(default_factory=dict)
    """Where observers keep what they need between hooks."""

    @property
    def results(self) -> tuple[CellResult, ...]:
        """The finished cells, in order; nobody can change them."""
        return tuple(self._results)

    @property
    def n_finished(self) -> int:
        """How many cells are finished; `results` is a copy of them all."""
        return len(self._results)

    def add(self, result: CellResult) -> None:
        """A finished cell: for the engine."""
        self._results.append(result)

    @property
    def folder(self) -> Path:
        """Where this run's own files go: results and tracebacks."""
        return self.output / "runs" / self.id

    @property
    def failed(self) -> bool:
        """Whether any cell has failed, or none could be judged."""
        statuses = [result.status for result in self.results]
        return "failed" in statuses or "ok" not in statuses
