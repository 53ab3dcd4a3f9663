"""What a job computes: the owner's steps and the suspects', each kept in the store. What is there is not computed."""

from __future__ import annotations

import traceback
from typing import Any, cast

from amb.api.plan import Plan
from amb.errors import StoreError
from amb.execution.cached_step import CachedSteps, StepSkipped
from amb.execution.jobs import EmbedJob, F, Job, Outcome, SuspectJob, describe_job
from amb.execution.owner import OwnerSteps
from amb.execution.reading import ReadingSteps
from amb.execution.suspects import SuspectSteps
from amb.plugin.registry import Registry
from amb.runtime.guard import guard_process
from amb.runtime.progress import Progress
from amb.store.lookup import NotStored
from amb.store.store import Store


class Steps:
    """Computes the jobs of one plan, in this process."""

    def __init__(self, plan: Plan, store: Store, progress: Progress, registry: Registry) -> None:
        self.plan = plan
        steps = CachedSteps(plan, store, progress, registry)
        reading = ReadingSteps(steps)
        self.owner = OwnerSteps(steps, reading)
        self.suspects = SuspectSteps(steps, reading, self.owner)

    def do(self, job: Job[F]) -> Outcome[F]:
        """Compute a job. A plugin that raises costs this job only; a store that cannot be written raises StoreError.

        One that only looks raises NotStored.
        """
        try:
            with guard_process():
                return Outcome("ok", cast(F, self._find_facts(job)))
        except StepSkipped as reason:
            return Outcome("skipped", reason=str(reason))
        except (StoreError, NotStored):
            raise
        except Exception as error:
            what = describe_job(self.plan, job)
            text = f"{what}\n\n{traceback.format_exc()}"
            return Outcome("failed", reason=f"{what}: {type(error).__name__}: {error}", traceback=text)

    def _find_facts(self, job: Job[Any]) -> Any:
        if isinstance(job, SuspectJob):
            return self.suspects.read(self.plan.methods[job.method], self.plan.suspects[job.suspect])
        if isinstance(job, EmbedJob):
            return self.owner.report_embedding(self.plan.methods[job.method])
        return self.owner.profile()
