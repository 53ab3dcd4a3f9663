"""The executor `processes`: workers of this machine, each with its GPU or its cores, replaced where they die."""

from __future__ import annotations

import multiprocessing
import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from threading import Thread
from typing import Any, ClassVar, Final

from pydantic import Field

from amb.api.executors import Assignment, Executor, Pool, Report
from amb.api.needs import Needs
from amb.runtime.guard import end_process
from amb.runtime.processes import count_cores

_LEAVE_SECONDS: Final = 10
"""How long an idle worker may take to leave."""
_USUAL_CORES: Final = 4
_GPUS: Final = "CUDA_VISIBLE_DEVICES"
_THREADS: Final = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")


class Processes(Executor):
    """Worker processes on this machine: one for each GPU, else one for every few cores.

    Each sees its own GPU alone, and takes as many threads as it has cores. One that dies is replaced.
    """

    name: ClassVar[str] = "processes"

    workers: int | None = Field(None, ge=1, le=256)
    """How many; by default as many as there are GPUs, or as the cores allow."""
    cores: int | None = Field(None, ge=1, le=1024)
    """Cores of each; by default 4, or an equal share where the number of workers is given."""
    per_gpu: int = Field(1, ge=1, le=64)
    """Workers that share a GPU."""

    def open(self, compute: Callable[[Any], Any], usual: Needs) -> Pool:
        """Starts the workers when there is work for them."""
        return _Processes(compute, self._list_places(usual))

    def _list_places(self, usual: Needs) -> list[dict[str, str]]:
        """What the environment of each worker says of its share of the machine."""
        gpus = _find_gpus() if usual.gpus else []
        n_cores = count_cores()
        n = self.workers or self.per_gpu * len(gpus) or max(1, n_cores // (self.cores or _USUAL_CORES))
        threads = dict.fromkeys(_THREADS, str(self.cores or max(1, n_cores // n)))
        return [{**threads, _GPUS: gpus[at % len(gpus)]} if gpus else threads for at in range(n)]


@dataclass
class _Worker:
    """One process, what it is at, and its share of the machine."""

    place: Mapping[str, str]
    process: Any
    pipe: Connection
    at: Assignment | None = None


class _Processes(Pool):
    """Processes with one assignment each."""

    def __init__(self, compute: Callable[[Any], Any], places: Sequence[Mapping[str, str]]) -> None:
        self._compute = compute
        self._free = deque(places)
        self._workers: list[_Worker] = []
        self._waiting: deque[Assignment] = deque()
        self._memory = _find_memory_mib()

    @property
    def width(self) -> int:
        """As many as there are workers, or could be."""
        return len(self._free) + len(self._workers)

    def submit(self, assignment: Assignment) -> None:
        """Have it computed when a worker is free."""
        self._waiting.append(assignment)

    def wait(self, seconds: float) -> Iterator[Report]:
        """What workers say, and which of them are gone."""
        self._begin_waiting()
        busy: dict[Any, _Worker] = {worker.pipe: worker for worker in self._workers if worker.at}
        for pipe in wait(list(busy), seconds) if busy else ():
            yield self._collect(busy[pipe])

    def kill(self, number: int) -> None:
        """With its worker, whose place becomes free."""
        self._waiting = deque(each for each in self._waiting if each.number != number)
        for worker in [each for each in self._workers if each.at and each.at.number == number]:
            worker.process.kill()
            self._bury(worker)

    def close(self) -> None:
        """What they were at is lost, what is finished is in the store."""
        for worker in self._workers:
            worker.pipe.close()  # an idle one leaves by itself, and leaves nothing behind
            if worker.at:
                worker.process.terminate()
        for worker in self._workers:
            worker.process.join(_LEAVE_SECONDS)
            worker.process.kill()
            worker.process.join()

    def _begin_waiting(self) -> None:
        while self._waiting and self._fits(self._waiting[0]) and (worker := self._find_idle()):
            self._send(worker, self._waiting.popleft())

    def _find_idle(self) -> _Worker | None:
        """A worker without work: one that is there, or a new one."""
        idle = next((worker for worker in self._workers if not worker.at), None)
        return idle or (self._start(self._free.popleft()) if self._free else None)

    def _fits(self, assignment: Assignment) -> bool:
        """Whether there is memory for it beside the others; alone it is tried anyhow."""
        held = [worker.at.needs.memory_mib for worker in self._workers if worker.at]
        return not held or sum(held) + assignment.needs.memory_mib <= self._memory

    def _send(self, worker: _Worker, assignment: Assignment) -> None:
        try:
            worker.pipe.send(assignment.load)
        except OSError:  # it was killed while it waited
            self._bury(worker)
            worker = self._start(self._free.popleft())
            worker.pipe.send(assignment.load)
        worker.at = assignment

    def _collect(self, worker: _Worker) -> Report:
        assert worker.at is not None  # noqa: S101 (only busy workers are waited for)
        number = worker.at.number
        try:
            event, result = worker.pipe.recv()
        except (EOFError, OSError):
            self._bury(worker)
            return Report(number, "lost", reason=_describe_end(worker.process.exitcode))
        if event == "done":
            worker.at = None
        return Report(number, event, result)

    def _start(self, place: Mapping[str, str]) -> _Worker:
        context = multiprocessing.get_context("spawn")  # a fork would share torch's threads and locks
        ours, theirs = context.Pipe()
        process = context.Process(target=_serve, args=(theirs, self._compute), daemon=True)
        with _set_environment(place):  # read by the libraries when they load
            process.start()
        theirs.close()
        worker = _Worker(place, process, ours)
        self._workers.append(worker)
        return worker

    def _bury(self, worker: _Worker) -> None:
        """Its place becomes free."""
        worker.process.join()
        worker.pipe.close()
        self._workers.remove(worker)
        self._free.append(worker.place)


def _serve(pipe: Connection, compute: Callable[[Any], Any]) -> None:
    """A worker's life: take a load, say that it has begun, send what comes of it, until the pipe closes."""
    Thread(target=_leave_with_parent, daemon=True).start()
    with suppress(EOFError, BrokenPipeError, KeyboardInterrupt):  # the parent is gone, or Ctrl-C reached us all
        while True:
            load = pipe.recv()
            pipe.send(("begun", None))
            pipe.send(("done", compute(load)))


def _leave_with_parent() -> None:
    """A killed parent leaves no worker behind that computes for nobody and slows the next run down."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        end_process(1)


def _describe_end(exitcode: int | None) -> str:
    return f"signal {-exitcode}" if exitcode is not None and exitcode < 0 else f"exit code {exitcode}"


def _find_gpus() -> list[str]:
    """The GPUs that this process may use, as the variable spells them."""
    if _GPUS in os.environ:
        return [each for each in os.environ[_GPUS].split(",") if each]
    import torch

    return [str(index) for index in range(torch.cuda.device_count())]


def _find_memory_mib() -> float:
    """Of this machine; endless where the system does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**20
    except (AttributeError, ValueError, OSError):
        return float("inf")


@contextmanager
def _set_environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Set variables for a process that is being started; numbers of threads that the user has set stay."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update({name: value for name, value in variables.items() if before[name] is None or name == _GPUS})
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
