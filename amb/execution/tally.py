"""How far a sweep is: what was computed as it comes in, and how long the rest may take."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from amb.api.plan import Plan
from amb.api.records import EmbeddingFacts, SuspectFacts
from amb.execution.jobs import Job, Outcome, ProfileJob, SuspectJob, make_order
from amb.runtime.progress import Progress
from amb.runtime.wording import count


@dataclass
class Tally:
    """Counts cells; says a line of whatever was not in the store."""

    progress: Progress
    n_cells: int
    n_embeddings: int
    n_read: int = 0
    n_done: int = 0
    n_computed: int = 0
    started: float = field(default_factory=time.monotonic)

    def note(self, plan: Plan, job: Job[Any], outcome: Outcome[Any]) -> None:
        """Count a job; say one line of it where it was not in the store."""
        if isinstance(job, ProfileJob):
            return
        self.n_read += isinstance(job, SuspectJob)
        self.n_done += 1
        if outcome.facts is not None and outcome.facts.cached:
            return
        self.n_computed += 1
        what = f"{make_order(plan, job).what}, seed {plan.seed}"
        came = _describe_outcome(outcome)
        self.progress.say(f"{self.n_read} of {count(self.n_cells, 'cell')}: {what}: {came}{self._estimate_rest()}")

    def _estimate_rest(self) -> str:
        """As if nothing of the rest were in the store."""
        n_left = self.n_cells + self.n_embeddings - self.n_done
        rest = (time.monotonic() - self.started) / self.n_computed * n_left
        return f"; about {rest / 60:.0f} min left" if rest > 90 else f"; about {rest:.0f} s left"


def _describe_outcome(outcome: Outcome[Any]) -> str:
    facts = outcome.facts
    if isinstance(facts, EmbeddingFacts):
        return f"{facts.seconds:.1f} s"
    if isinstance(facts, SuspectFacts):
        return f"{facts.seconds['attack']:.1f} s to attack, {facts.seconds['extract']:.1f} s to extract"
    return outcome.status
