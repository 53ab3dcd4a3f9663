"""What a job computes: the owner's steps and the suspects', each kept in the store. What is there is not computed."""

from __future__ import annotations

import traceback
from typing import Any

from amb.api.plan import Plan
from amb.errors import StoreError
from amb.execution.cached_step import CachedSteps, StepSkipped
from amb.execution.jobs import F, Job, Order, Outcome, make_order
from amb.execution.owner import OwnerSteps
from amb.execution.reading import ReadingSteps
from amb.execution.suspects import SuspectSteps
from amb.models.cache import ModelCache
from amb.plugin.registry import Registry
from amb.runtime.guard import guard_process
from amb.runtime.progress import Progress
from amb.store.lookup import NotStored
from amb.store.store import Store


class Steps:
    """Computes the jobs of one plan, in this process; what it has found of a method serves all its suspects."""

    def __init__(
        self, plan: Plan, store: Store, progress: Progress, registry: Registry, models: ModelCache | None = None
    ) -> None:
        self.plan = plan
        steps = CachedSteps(plan, store, progress, registry, models)
        reading = ReadingSteps(steps)
        self.owner = OwnerSteps(steps, reading)
        self.suspects = SuspectSteps(steps, reading, self.owner)

    def do(self, job: Job[F]) -> Outcome[F]:
        """Compute a job of the plan, as `compute` does."""
        return self.compute(make_order(self.plan, job))

    def compute(self, order: Order) -> Outcome[Any]:
        """Compute a job by value. A plugin that raises costs this job only; a store that cannot be written raises StoreError.

        One that only looks raises NotStored.
        """
        try:
            with guard_process():
                return Outcome("ok", self._find_facts(order))
        except StepSkipped as reason:
            return Outcome("skipped", reason=str(reason))
        except (StoreError, NotStored):
            raise
        except Exception as error:
            text = f"{order.what}\n\n{traceback.format_exc()}"
            return Outcome("failed", reason=f"{order.what}: {type(error).__name__}: {error}", traceback=text)

    def _find_facts(self, order: Order) -> Any:
        if order.method is None:
            return self.owner.profile()
        if order.suspect is None:
            return self.owner.report_embedding(order.method)
        return self.suspects.read(order.method, order.suspect)
