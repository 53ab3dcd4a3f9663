"""Worker processes that compute the jobs of several plans ahead of the engines that ask for them."""

from __future__ import annotations

import multiprocessing
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from multiprocessing.connection import Connection, wait
from pathlib import Path
from threading import Thread
from typing import Any, NamedTuple

from amb.api.plan import Plan
from amb.errors import StoreError
from amb.execution.jobs import (
    EmbedJob,
    F,
    Job,
    JobRunner,
    Outcome,
    ProfileJob,
    SuspectJob,
    describe_job,
    list_suspect_jobs,
)
from amb.execution.steps import Steps
from amb.execution.store import Store
from amb.plugin.manager import manager
from amb.runtime.guard import end_process
from amb.runtime.progress import Silent, make_progress
from amb.runtime.stopping import is_asked_to_stop, stop_if_asked

_LEAVE_SECONDS = 10
"""How long an idle worker may take to leave."""


class PlannedJob(NamedTuple):
    """A job of one of the plans."""

    plan: int
    job: Job[Any]


@dataclass
class _Worker:
    """One process and the task it is at."""

    process: Any
    pipe: Connection
    task: PlannedJob | None = None


@dataclass
class Workers:
    """Processes with one task each. One that dies costs the task it was at, which fails; another takes its place."""

    plans: Sequence[Plan]
    store: Path
    n: int
    heard: Callable[[Plan, Job[Any], Outcome[Any]], None] = lambda *_: None
    """Told of each outcome as it comes in."""
    quiet: bool = False
    _waiting: deque[PlannedJob] = field(default_factory=deque)
    _done: dict[PlannedJob, Outcome[Any]] = field(default_factory=dict)
    _workers: list[_Worker] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._waiting.extend(order_jobs(self.plans))
        self._workers.extend(self._start_worker() for _ in range(min(self.n, len(self._waiting))))

    def runner_of(self, plan: int) -> JobRunner:
        """What the engine of a plan calls for each of its jobs."""

        def run_job(job: Job[F]) -> Outcome[F]:
            return self._wait_for(PlannedJob(plan, job))

        return run_job

    def stop(self) -> None:
        """End every process; what they were at is lost, what is finished is in the store."""
        for worker in self._workers:
            worker.pipe.close()  # an idle one leaves by itself, and leaves nothing behind
            if worker.task:
                worker.process.terminate()
        for worker in self._workers:
            worker.process.join(_LEAVE_SECONDS)
            worker.process.terminate()
            worker.process.join()

    def _wait_for(self, task: PlannedJob) -> Outcome[Any]:
        """The outcome of a task, waited for while all workers are kept busy."""
        while task not in self._done:
            if not is_asked_to_stop():
                self._hand_out_jobs()
            busy = {worker.pipe: worker for worker in self._workers if worker.task}
            if not busy:
                stop_if_asked()
            for pipe in wait(list(busy)):
                self._collect_outcome(busy[pipe])  # type: ignore[index]
        return self._done[task]

    def _hand_out_jobs(self) -> None:
        for at, worker in enumerate(self._workers):
            if worker.task is None and (task := self._choose_next()) is not None:
                self._workers[at] = self._send_job(worker, task)

    def _send_job(self, worker: _Worker, task: PlannedJob) -> _Worker:
        """The worker that has the task: another one where this was killed while it waited."""
        try:
            worker.pipe.send(task)
        except OSError:
            worker = self._start_worker()
            worker.pipe.send(task)
        worker.task = task
        return worker

    def _choose_next(self) -> PlannedJob | None:
        """The first task that can begin, rather one whose suspect no other worker is making at the moment."""
        making = {_find_suspect(worker.task) for worker in self._workers if worker.task} - {None}
        ready = (task for task in self._waiting if self._can_begin(task))
        first = next(ready, None)
        chosen = first
        if first is not None and _find_suspect(first) in making:
            chosen = next((task for task in ready if _find_suspect(task) not in making), first)
        if chosen is not None:
            self._waiting.remove(chosen)
        return chosen

    def _can_begin(self, task: PlannedJob) -> bool:
        if not isinstance(task.job, SuspectJob):
            return True
        embedded = self._done.get(PlannedJob(task.plan, EmbedJob(task.job.method)))
        return embedded is not None and embedded.status == "ok"

    def _collect_outcome(self, worker: _Worker) -> None:
        task = worker.task
        assert task is not None  # noqa: S101 (only busy workers are waited for)
        try:
            answer = worker.pipe.recv()
        except (EOFError, OSError):
            worker.process.join()
            what = describe_job(self.plans[task.plan], task.job)
            answer = Outcome("failed", reason=f"{what}: its process died ({_describe_end(worker.process.exitcode)})")
            self._workers[self._workers.index(worker)] = self._start_worker()
        if isinstance(answer, str):
            raise StoreError(answer)
        self._done[task] = answer
        worker.task = None
        self.heard(self.plans[task.plan], task.job, answer)

    def _start_worker(self) -> _Worker:
        context = multiprocessing.get_context("spawn")  # a fork would share torch's threads and locks
        ours, theirs = context.Pipe()
        threads = max(1, (os.cpu_count() or 1) // self.n)
        work = partial(_serve_jobs, theirs, list(self.plans), self.store, threads, self.quiet)
        process = context.Process(target=work, daemon=True)
        with _set_environment(OMP_NUM_THREADS=str(threads)):  # read by the libraries when they load
            process.start()
        theirs.close()
        return _Worker(process, ours)


def order_jobs(plans: Sequence[Plan]) -> Iterator[PlannedJob]:
    """Every job of every plan: embeddings first, so that no worker waits for one at the end."""
    for index, plan in enumerate(plans):
        yield PlannedJob(index, ProfileJob())
        yield from (PlannedJob(index, EmbedJob(method)) for method in range(len(plan.methods)))
    for index, plan in enumerate(plans):
        yield from (PlannedJob(index, job) for job in list_suspect_jobs(plan))


def _serve_jobs(pipe: Connection, plans: list[Plan], root: Path, threads: int, quiet: bool) -> None:
    """A worker's life: take a task, send its outcome, until the pipe closes."""
    import torch

    Thread(target=_leave_with_parent, daemon=True).start()
    torch.set_num_threads(threads)
    store = Store(root, make_progress(quiet).say)
    registry = manager().registry
    steps: dict[int, Steps] = {}
    try:
        while True:
            task: PlannedJob = pipe.recv()
            if task.plan not in steps:
                steps = {task.plan: Steps(plans[task.plan], store, Silent(), registry)}  # one plan's models in memory
            try:
                pipe.send(steps[task.plan].do(task.job))
            except StoreError as error:
                pipe.send(str(error))
    except (EOFError, BrokenPipeError, KeyboardInterrupt):
        return  # the parent is gone, or Ctrl-C reached us all


def _leave_with_parent() -> None:
    """A killed parent leaves no worker behind that computes for nobody and slows the next run down."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        end_process(1)


def _find_suspect(task: PlannedJob | None) -> tuple[int, int] | None:
    """What is attacked and measured; two methods that leave the owner as it is share it."""
    return (task.plan, task.job.suspect) if task and isinstance(task.job, SuspectJob) else None


def _describe_end(exitcode: int | None) -> str:
    return f"signal {-exitcode}" if exitcode is not None and exitcode < 0 else f"exit code {exitcode}"


@contextmanager
def _set_environment(**variables: str) -> Iterator[None]:
    """Set environment variables for a process that is being started, unless the user has."""
    added = {name: value for name, value in variables.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            del os.environ[name]
