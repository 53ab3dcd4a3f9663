"""The engine: embed, then read every suspect and decide; a failure stays in its cell, observers hear of everything."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from amb.api.records import CellResult, Evidence
from amb.evaluation.primary_utility import share_lost
from amb.execution.planning import Plan, Suspect
from amb.execution.steps import Job, Outcome
from amb.plugin.manager import Manager
from amb.runtime.progress import Progress


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
    results: list[CellResult] = field(default_factory=list)
    embeddings: list[dict[str, Any]] = field(default_factory=list)
    """What is worth reporting of each embedding: seconds, utility before and after, similarity."""
    profile: Mapping[str, Any] | None = None
    """Activation profile of the owner, where it has blocks."""
    profile_figure: Path | None = None
    links: dict[str, str] = field(default_factory=dict)
    """Where else to look, said by observers: an address or a command."""
    notes: dict[str, Any] = field(default_factory=dict)
    """Where observers keep what they need between hooks."""

    @property
    def folder(self) -> Path:
        """Where this run's own files go: results and tracebacks."""
        return self.output / "runs" / self.id

    @property
    def failed(self) -> bool:
        """Whether any cell has failed, or none could be judged."""
        statuses = [result.status for result in self.results]
        return "failed" in statuses or "ok" not in statuses


@dataclass(frozen=True)
class Reading:
    """What was measured on one suspect, before the verdict."""

    result: CellResult
    evidence: Evidence | None
    others: Sequence[Reading] = ()
    """A forged key's readings on other innocent models, on which its verdict rests."""


class Engine:
    """Takes a run through its cells in order; `do` computes them, here or in other processes."""

    def __init__(self, run: Run, do: Callable[[Job], Outcome], manager: Manager, progress: Progress) -> None:
        self.run = run
        self.plan = run.plan
        self.do = do
        self.manager = manager
        self.progress = progress

    def execute(self) -> None:
        """Judge every cell. An interruption leaves what is finished."""
        self._notify("amb_run_started", run=self.run)
        try:
            self._profile_owner()
            for index in range(len(self.plan.methods)):
                self._run_method(index)
        finally:
            self._notify("amb_run_finished", run=self.run)

    def _profile_owner(self) -> None:
        outcome = self._do(Job("profile"))
        if outcome.status != "ok":
            self.progress.say(f"no activation profile: {outcome.reason}")
            return
        self.run.profile = {name: value for name, value in outcome.facts.items() if name != "figure"}
        self.run.profile_figure = outcome.facts["figure"]

    def _run_method(self, index: int) -> None:
        """Embed, read all negatives, then the positives: verdicts rest on the negatives."""
        outcome = self._do(Job("embed", index))
        if outcome.status != "ok":
            for suspect in self.plan.suspects:
                cell = self.plan.cell(self.plan.methods[index], suspect)
                self._finish(index, Reading(CellResult(cell, outcome.status, reason=outcome.reason), None), [])
            return
        self.run.embeddings.append(dict(outcome.facts))
        kept = outcome.facts["utility_after"]
        negatives = [self._read(index, at) for at, each in enumerate(self.plan.suspects) if each.kind == "negative"]
        for reading in negatives:
            self._finish(index, reading, [other for other in negatives if other is not reading])
        for at, suspect in enumerate(self.plan.suspects):
            if suspect.kind == "forged":
                reading = self._read(index, at)
                self._finish(index, reading, reading.others)
            elif suspect.kind == "positive":
                self._finish(index, self._gated(self._read(index, at), kept), negatives)

    def _read(self, method: int, at: int) -> Reading:
        """Measure one suspect; the verdict comes later."""
        suspect: Suspect = self.plan.suspects[at]
        cell = self.plan.cell(self.plan.methods[method], suspect)
        self._notify("amb_cell_started", run=self.run, cell=cell)
        outcome = self._do(Job("measure", method, at))
        if outcome.status != "ok":
            return Reading(CellResult(cell, outcome.status, reason=outcome.reason), None)
        facts = dict(outcome.facts)
        others = [Reading(CellResult(cell, "ok"), Evidence.load(path)) for path in facts.pop("others", [])]
        return Reading(CellResult(cell, "ok", **facts), Evidence.load(facts["evidence"]), others)

    def _gated(self, reading: Reading, kept: Mapping[str, float]) -> Reading:
        """With the share of utility that the attacks took, and whether that is more than the suite tolerates."""
        lost = share_lost(kept, reading.result.utility)
        destroyed = lost is not None and lost > self.plan.suite.tolerance
        return replace(reading, result=replace(reading.result, utility_lost=lost, destroyed=destroyed))

    def _finish(self, method: int, reading: Reading, negatives: Sequence[Reading]) -> None:
        """Decide, record and tell the observers."""
        from amb.evaluation.statistics import decide

        result = reading.result
        if reading.evidence is not None:
            known = [each.evidence for each in negatives if each.evidence is not None]
            tau = min(self.plan.tau_of(self.plan.methods[method]), reading.evidence.expected.shape[1])
            judge = partial(decide, reading.evidence, known, tau, self.plan.alpha)
            result = self._judged(result, judge)
        self.run.results.append(result)
        self._notify("amb_cell_finished", run=self.run, cell=result.cell, result=result)

    def _judged(self, result: CellResult, judge: Callable[[], Any]) -> CellResult:
        """With its verdict; evidence that cannot be judged, such as a key's of another size, fails its cell."""
        try:
            return replace(result, verdict=judge())
        except Exception as error:
            import traceback

            reason = f"verdict on {result.cell.suspect}: {type(error).__name__}: {error}"
            path = self._save_traceback(f"{reason}\n\n{traceback.format_exc()}")
            return replace(result, status="failed", reason=f"{reason} (traceback in {path})")

    def _do(self, job: Job) -> Outcome:
        """The outcome of a job, with the traceback of a failure in a file."""
        outcome = self.do(job)
        if not outcome.traceback:
            return outcome
        path = self._save_traceback(outcome.traceback)
        return replace(outcome, reason=f"{outcome.reason} (traceback in {path})")

    def _save_traceback(self, text: str) -> Path:
        folder = self.run.folder / "tracebacks"
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{len(list(folder.iterdir())) + 1:03}.txt"
        path.write_text(text, encoding="utf-8")
        return path

    def _notify(self, hook: str, **arguments: Any) -> None:
        for warning in self.manager.notify(hook, **arguments):
            self.progress.say(f"warning: {warning}")
