"""The driver of a sweep: hands jobs to a pool of workers, tries again what was lost, ends what takes too long.

It is the same for every executor, so what one records, all record.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import count
from typing import Any, Final

from amb.api.executors import Assignment, Pool, Report
from amb.api.needs import Needs
from amb.api.plan import Plan
from amb.errors import AmbError
from amb.execution.job_queue import JobQueue
from amb.execution.jobs import F, Job, JobRunner, Order, Outcome, PlannedJob, frame_of, make_order
from amb.execution.worker import Stopped
from amb.runtime.stopping import is_asked_to_stop, stop_if_asked

_AHEAD: Final = 2_000
"""Outcomes that may wait for their engine before nothing more is handed out."""
_LOOK_SECONDS: Final = 5.0
"""How often a pool is asked for its width while nothing happens."""


@dataclass(frozen=True)
class Limits:
    """What a job may cost."""

    retries: int = 2
    """How often it is tried again elsewhere when its worker dies."""
    step_timeout: float | None = None
    """Seconds that it may compute before its worker is killed."""


@dataclass
class _Held:
    """A job that the pool has."""

    planned: PlannedJob
    order: Order
    tries: int
    began: float | None = None


class Dispatcher:
    """Computes the jobs of several plans ahead of the engines that ask for them."""

    def __init__(
        self,
        plans: Sequence[Plan],
        pool: Pool,
        needs_of: Callable[[Order], Needs],
        limits: Limits = Limits(),
        heard: Callable[[Plan, Job[Any], Outcome[Any]], None] = lambda *_: None,
    ) -> None:
        """`heard` is told of each outcome as it comes in."""
        self._plans, self._pool, self._needs_of, self._limits, self._heard = plans, pool, needs_of, limits, heard
        self._queue = JobQueue(plans, max(1, pool.width))
        self._numbers = count()
        self._held: dict[int, _Held] = {}
        self._done: dict[PlannedJob, Outcome[Any]] = {}
        self._frame_of = cache(lambda plan: frame_of(plans[plan]))

    def runner_of(self, plan: int) -> JobRunner:
        """What the engine of a plan calls for each of its jobs, once."""

        def run_job(job: Job[F]) -> Outcome[F]:
            return self._wait_for(PlannedJob(plan, job))

        return run_job

    def _wait_for(self, planned: PlannedJob) -> Outcome[Any]:
        while planned not in self._done:
            if not is_asked_to_stop():
                self._hand_out()
            else:
                self._take_back()
                if not self._held:
                    stop_if_asked()
            for report in self._pool.wait(self._until_overdue()):
                self._take_report(report)
            self._end_overdue()
        return self._done.pop(planned)

    def _hand_out(self) -> None:
        """Keep the pool full, but not far beyond what the engines ask for."""
        while len(self._held) < self._pool.width and (len(self._done) < _AHEAD or not self._held):
            planned = self._queue.take([held.planned for held in self._held.values()])
            if planned is None:
                return
            plan, job = planned
            self._submit(_Held(planned, make_order(self._plans[plan], job, self._frame_of(plan)), tries=1))

    def _take_back(self) -> None:
        """What has not begun is not to begin."""
        for number in [number for number, held in self._held.items() if held.began is None]:
            self._pool.kill(number)
            del self._held[number]

    def _submit(self, held: _Held) -> None:
        number, order = next(self._numbers), held.order
        self._held[number] = held
        self._pool.submit(Assignment(number, order.what, self._needs_of(order), order))

    def _take_report(self, report: Report) -> None:
        held = self._held.get(report.number)
        if held is None:
            return
        if report.event == "begun":
            held.began = time.monotonic()
            return
        del self._held[report.number]
        if report.event == "done":
            self._finish(held, report.result)
        elif is_asked_to_stop():  # the same command tries it again
            return
        elif held.tries <= self._limits.retries:
            self._submit(_Held(held.planned, held.order, held.tries + 1))
        else:
            each = f" at each of {held.tries} tries, the last time" if held.tries > 1 else ""
            self._finish(held, Outcome("failed", reason=f"{held.order.what}: its worker died{each} ({report.reason})"))

    def _finish(self, held: _Held, outcome: Outcome[Any] | Stopped) -> None:
        if isinstance(outcome, Stopped):
            raise AmbError(outcome.reason)
        plan, job = held.planned
        self._done[held.planned] = outcome
        self._queue.finish(held.planned, outcome.status == "ok")
        self._heard(self._plans[plan], job, outcome)

    def _until_overdue(self) -> float:
        """Seconds until the next job has taken too long."""
        began = [held.began for held in self._held.values() if held.began is not None]
        if self._limits.step_timeout is None or not began:
            return _LOOK_SECONDS
        return max(0.0, min(_LOOK_SECONDS, min(began) + self._limits.step_timeout - time.monotonic()))

    def _end_overdue(self) -> None:
        most = self._limits.step_timeout
        if most is None:
            return
        now = time.monotonic()
        for number, held in [*self._held.items()]:
            if held.began is not None and now - held.began >= most:
                self._pool.kill(number)
                del self._held[number]
                reason = f"{held.order.what}: stopped after {most:g} s, the most that a step may take (--step-timeout)"
                self._finish(held, Outcome("failed", reason=reason))
