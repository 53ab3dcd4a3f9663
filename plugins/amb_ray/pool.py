"""The pool of the executor `ray`. Imports Ray, so it is imported when a sweep begins."""

from __future__ import annotations

import math
import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")  # workers have the packages of their machine, not uv's
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import ray
from ray import exceptions

import amb

if TYPE_CHECKING:
    from amb_ray import RayExecutor

_LOOK_SECONDS: Final = 5.0
"""How often the cluster is asked for its size."""
_PATIENCE_SECONDS: Final = 600.0
"""How long a cluster may have no machine that is large enough: an autoscaler takes minutes."""
_TRAVELLING: Final = (
    "AMB_DATA",
    "AMB_DOWNLOAD",
    "AMB_OFFLINE",
    "AMB_DISABLE_PLUGINS",
    "HF_HUB_OFFLINE",
    "HF_DATASETS_OFFLINE",
)
"""Variables of the driver that its workers heed; passwords are not among them."""


def _compute(compute: Callable[[Any], Any], load: Any) -> Iterator[Any]:
    """A task: the first answer says that it has begun, the second is what came of it."""
    yield "begun", None
    yield "done", compute(load)


class RayPool(amb.Pool):
    """Tasks of a cluster, never more than it has room for and a few that wait."""

    def __init__(self, executor: RayExecutor, compute: Callable[[Any], Any], usual: amb.Needs) -> None:
        self._executor, self._usual = executor, usual
        self._started = not ray.is_initialized()
        if self._started:
            _connect(executor.address)
        # A worker keeps its models for the next task: without `max_calls=0` Ray ends it after each one that had a GPU.
        self._task = ray.remote(num_returns="streaming", max_retries=0, max_calls=0)(_compute)
        self._compute = ray.put(compute)
        self._running: dict[Any, tuple[int, amb.Needs]] = {}
        self._looked = -math.inf
        self._fitted = time.monotonic()
        self._places = 0

    @property
    def width(self) -> int:
        return self.places + self._executor.queued

    @property
    def places(self) -> int:
        """Of all machines together, for usual jobs."""
        if time.monotonic() - self._looked > _LOOK_SECONDS:
            self._looked = time.monotonic()
            nodes = [node for node in ray.nodes() if node["Alive"]]
            self._places = sum(_count_places(node, self._usual) for node in nodes)
            self._require_room(nodes)
        return max(1, self._places)

    def submit(self, assignment: amb.Assignment) -> None:
        needs = self._executor.choose(assignment.needs)
        options = {"num_cpus": needs.cpus, "num_gpus": needs.gpus, "memory": needs.memory_mib * 2**20 or None}
        answers = self._task.options(name=assignment.name, **options).remote(self._compute, assignment.load)
        self._running[answers] = assignment.number, needs

    def wait(self, seconds: float) -> Iterator[amb.Report]:
        if not self._running:
            return
        ready, _ = ray.wait(list(self._running), num_returns=len(self._running), timeout=0, fetch_local=False)
        if not ready:
            ready, _ = ray.wait(list(self._running), num_returns=1, timeout=seconds, fetch_local=False)
        for answers in ready:
            yield self._read(answers)

    def kill(self, number: int) -> None:
        for answers in [each for each, (its, _) in self._running.items() if its == number]:
            ray.cancel(answers, force=True)
            del self._running[answers]

    def close(self) -> None:
        for answers in self._running:
            with suppress(exceptions.RayError, ValueError):
                ray.cancel(answers, force=True)
        self._running.clear()
        if self._started:
            ray.shutdown()

    def _read(self, answers: Any) -> amb.Report:
        """The next answer of a task that has one."""
        number, _ = self._running[answers]
        try:
            event, result = ray.get(next(answers))
        except (exceptions.RayError, StopIteration) as error:
            del self._running[answers]
            return amb.Report(number, "lost", reason=_describe(error))
        if event == "done":
            del self._running[answers]
        return amb.Report(number, event, result)

    def _require_room(self, nodes: Sequence[Mapping[str, Any]]) -> None:
        """Every job finds a machine that is large enough for it, or one is on its way, but not for ever. Raises AmbError."""
        asked = {self._usual, *(needs for _, needs in self._running.values())}
        lacking = [needs for needs in asked if not any(_count_places(node, needs) for node in nodes)]
        now = time.monotonic()
        self._fitted = self._fitted if lacking else now
        if now - self._fitted > _PATIENCE_SECONDS:
            needs = lacking[0]
            raise amb.AmbError(
                f"No machine of the Ray cluster has {needs.cpus:g} cores, {needs.gpus:g} GPUs and {needs.memory_mib / 1024:.1f} "
                "GiB for a job, and none came. Ask for less: --executor ray:cpus=1,gpus=0,memory=1."
            )


def _count_places(node: Mapping[str, Any], usual: amb.Needs) -> int:
    """How many usual jobs a machine has room for, were it idle."""
    wanted = {"CPU": usual.cpus, "GPU": usual.gpus, "memory": usual.memory_mib * 2**20}
    shares = [node["Resources"].get(name, 0) / amount for name, amount in wanted.items() if amount]
    return int(min(shares, default=1))


def _connect(address: str) -> None:
    """Join a cluster, or start one. Raises AmbError."""
    if address not in ("auto", "local"):
        _require_listener(address)
    variables = {name: os.environ[name] for name in _TRAVELLING if name in os.environ}
    options = {"include_dashboard": False} if address == "local" else {}
    try:
        ray.init(address, log_to_driver=False, runtime_env={"env_vars": variables}, logging_level="ERROR", **options)
    except (ConnectionError, RuntimeError, ValueError, exceptions.RayError) as error:
        raise _no_cluster(address, " ".join(str(error).split())[:300]) from None


def _require_listener(address: str) -> None:
    """Ask whether anybody is there, for Ray would ask for minutes. Raises AmbError."""
    host, _, port = address.rpartition(":")
    if not host or "/" in host or not port.isdecimal():
        raise amb.BadParamsError(f"A Ray cluster is at auto, local or HOST:PORT of its head (got {address}).")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
    except (OSError, OverflowError) as error:
        raise _no_cluster(address, str(error)) from None


def _no_cluster(address: str, why: str) -> amb.AmbError:
    return amb.AmbError(
        f"No Ray cluster answers at {address} ({why}). Start one with `ray start --head`, or leave --address out."
    )


def _describe(error: BaseException) -> str:
    """What happened to a worker, in a few words."""
    known = {
        exceptions.NodeDiedError: "its node died",
        exceptions.OutOfMemoryError: "its node ran out of memory",
        exceptions.WorkerCrashedError: "its process died",
        exceptions.ObjectLostError: "its answer was lost with its node",
    }
    for kind, words in known.items():
        if isinstance(error, kind):
            return words
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return f"{type(error).__name__}: {lines[-1].strip()[:200]}"
