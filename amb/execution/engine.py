"""The engine: embed, then read every suspect and decide; a failure stays in its cell, observers hear of everything."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from amb.api.frozen import freeze
from amb.api.records import CellResult, Evidence, StoredFile, Verdict, find_source
from amb.api.run import Run
from amb.errors import StoreError
from amb.evaluation.primary_utility import utility_drop
from amb.evaluation.verdict import Negative, decide
from amb.execution.jobs import EmbedJob, F, Job, JobRunner, Outcome, ProfileJob, SuspectJob
from amb.plugin.manager import Manager
from amb.runtime.progress import Progress
from amb.store.store import Store


@dataclass(frozen=True)
class Unjudged:
    """A cell whose suspect was read, before the verdict."""

    result: CellResult
    evidence: Evidence | None
    others: Sequence[Negative] = ()
    """What a forged key reads on other innocent models, on which its verdict rests."""

    def as_negatives(self) -> list[Negative]:
        """For verdicts on others: nothing where nothing was read."""
        return [Negative(self.evidence, find_source(self.result.cell))] if self.evidence else []


def _gather(readings: Iterable[Unjudged]) -> list[Negative]:
    return [negative for reading in readings for negative in reading.as_negatives()]


class Engine:
    """Takes a run through its cells in order; `do` computes them, here or in other processes."""

    def __init__(self, run: Run, do: JobRunner, store: Store, manager: Manager, progress: Progress) -> None:
        """`store` is where this process finds what was computed, wherever that was."""
        self.run = run
        self.plan = run.plan
        self.do = do
        self.store = store
        self.manager = manager
        self.progress = progress

    def execute(self) -> None:
        """Judge every cell. An interruption leaves what is finished."""
        self._notify_observers("amb_run_started", run=self.run)
        try:
            self._profile_owner()
            for index in range(len(self.plan.methods)):
                self._run_method(index)
        finally:
            self._notify_observers("amb_run_finished", run=self.run)

    def _profile_owner(self) -> None:
        outcome = self._do_job(ProfileJob())
        if outcome.facts is None:
            self.progress.say(f"no activation profile: {outcome.reason}")
            return
        self.run.profile, self.run.profile_figure = outcome.facts.profile, self._find_file(outcome.facts.figure)

    def _run_method(self, index: int) -> None:
        """Embed, read all negatives, then the positives: verdicts rest on the negatives."""
        outcome = self._do_job(EmbedJob(index))
        if outcome.facts is None:
            for suspect in self.plan.suspects:
                cell = self.plan.cell(self.plan.methods[index], suspect)
                self._finish_cell(index, Unjudged(CellResult(cell, outcome.status, reason=outcome.reason), None), [])
            return
        self.run.embeddings.append(outcome.facts)
        kept = outcome.facts.utility_after
        negatives = [
            self._read_suspect(index, at) for at, each in enumerate(self.plan.suspects) if each.kind == "negative"
        ]
        for reading in negatives:
            self._finish_cell(index, reading, _gather(other for other in negatives if other is not reading))
        for at, suspect in enumerate(self.plan.suspects):
            if suspect.kind == "forged":
                reading = self._read_suspect(index, at)
                self._finish_cell(index, reading, reading.others)
            elif suspect.kind == "positive":
                self._finish_cell(index, self._check_utility(self._read_suspect(index, at), kept), _gather(negatives))

    def _read_suspect(self, method: int, at: int) -> Unjudged:
        """Measure one suspect; the verdict comes later."""
        cell = self.plan.cell(self.plan.methods[method], self.plan.suspects[at])
        self._notify_observers("amb_cell_started", run=self.run, cell=cell)
        outcome = self._do_job(SuspectJob(method, at))
        if outcome.facts is None:
            return Unjudged(CellResult(cell, outcome.status, reason=outcome.reason), None)
        others = [Negative(Evidence.load(self._find_file(file)), source) for source, file in outcome.facts.others]
        path = self._find_file(outcome.facts.evidence)
        return Unjudged(CellResult.of(cell, outcome.facts, path), Evidence.load(path), others)

    def _check_utility(self, reading: Unjudged, kept: Mapping[str, float]) -> Unjudged:
        """With the share of utility that the attacks took, and whether that is more than the suite tolerates."""
        drop = utility_drop(kept, reading.result.utility)
        destroyed = drop is not None and drop > self.plan.suite.tolerance
        return replace(reading, result=replace(reading.result, utility_drop=drop, destroyed=destroyed))

    def _finish_cell(self, method: int, reading: Unjudged, negatives: Sequence[Negative]) -> None:
        """Decide, record and tell the observers."""
        result = reading.result
        if reading.evidence is not None:
            asked = self.plan.methods[method]
            tau = min(self.plan.tau_of(asked), reading.evidence.expected.shape[1])
            source = None if result.cell.kind == "positive" else find_source(result.cell)
            judge = partial(decide, reading.evidence, negatives, tau, self.plan.alpha)
            judge = partial(judge, null=asked.null, source=source, level=self.plan.level)
            result = self._judge_cell(result, judge)
        result = freeze(result)
        self.run.add(result)
        self._notify_observers("amb_cell_finished", run=self.run, cell=result.cell, result=result)

    def _judge_cell(self, result: CellResult, judge: Callable[[], Verdict]) -> CellResult:
        """With its verdict; evidence that cannot be judged, such as a key's of another size, fails its cell."""
        try:
            return replace(result, verdict=judge())
        except Exception as error:
            import traceback

            reason = f"verdict on {result.cell.suspect}: {type(error).__name__}: {error}"
            path = self._save_traceback(f"{reason}\n\n{traceback.format_exc()}")
            return replace(result, status="failed", reason=f"{reason} (traceback in {path})")

    def _do_job(self, job: Job[F]) -> Outcome[F]:
        """The outcome of a job, with the traceback of a failure in a file."""
        outcome = self.do(job)
        if not outcome.traceback:
            return outcome
        path = self._save_traceback(outcome.traceback)
        return replace(outcome, reason=f"{outcome.reason} (traceback in {path})")

    def _find_file(self, file: StoredFile) -> Path:
        """Where this machine has a file that a worker has put into the store. Raises StoreError."""
        entry = self.store.open_entry(file.kind, file.digest)
        if entry is None:
            raise StoreError(
                f"A worker has made {file.kind}/{file.digest}, and the store {self.store.location} does not have it: driver "
                "and workers have to see one store. Put it into a folder that all of them share."
            )
        return entry.folder / file.name

    def _save_traceback(self, text: str) -> Path:
        folder = self.run.folder / "tracebacks"
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{len(list(folder.iterdir())) + 1:03}.txt"
        path.write_text(text, encoding="utf-8")
        return path

    def _notify_observers(self, hook: str, **arguments: Any) -> None:
        for warning in self.manager.notify(hook, **arguments):
            self.progress.say(f"warning: {warning}")
