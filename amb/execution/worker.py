"""A worker: computes orders in the process that it lives in, and keeps the models that several of them need."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import Any, Final

from amb import __version__
from amb.api.component import source_digest
from amb.api.plan import Plan
from amb.errors import AmbError, PluginError, StoreError
from amb.execution.cached_step import open_models
from amb.execution.jobs import Order, Outcome
from amb.execution.steps import Steps
from amb.models.cache import ModelCache
from amb.plugin.manager import manager
from amb.plugin.registry import Registry
from amb.runtime.compute import Compute
from amb.runtime.progress import Progress, Silent, make_progress
from amb.store.store import Store, open_store

_PLANS_KEPT: Final = 8
"""Plans whose embeddings, with their keys, a worker has at hand: engines go through them one after the other."""


@dataclass(frozen=True)
class Stopped:
    """What a worker answers where nothing more can be computed: the store cannot be written, or amb is another."""

    reason: str


@dataclass
class Worker:
    """Computes orders of any plans. Seeds of one suite share its models."""

    store: Store
    registry: Registry
    progress: Progress
    _steps: deque[Steps] = field(default_factory=lambda: deque(maxlen=_PLANS_KEPT))
    _models: dict[Compute, ModelCache] = field(default_factory=dict)

    def __post_init__(self) -> None:
        source_digest.cache_clear()  # what a worker finds belongs to the code that it began with

    def compute(self, order: Order) -> Outcome[Any]:
        """The outcome of an order. Raises StoreError."""
        return self._steps_of(order.plan).compute(order)

    def _steps_of(self, plan: Plan) -> Steps:
        found = next((steps for steps in self._steps if steps.plan == plan), None)
        if found is None:
            models = self._models.get(plan.compute) or open_models(plan.compute, self.progress, self.registry)
            self._models[plan.compute] = models
            found = Steps(plan, self.store, self.progress, self.registry, models)
            self._steps.append(found)
        return found


@dataclass(frozen=True)
class WorkFunction:
    """What an executor calls with each order. In another process it is a worker of that process, opened once."""

    open_worker: Callable[[], Worker]
    location: str
    """Of the store, as any machine reaches it."""
    quiet: bool = False

    @cached_property
    def _worker(self) -> Worker:
        return self.open_worker()

    def __call__(self, order: Order) -> Outcome[Any] | Stopped:
        """The outcome of an order, or why none can be had any more."""
        if order.code != order.digest_code():
            return Stopped(
                f"A worker has other code than the driver for {order.what}: install the same plugins on both."
            )
        try:
            return self._worker.compute(order)
        except StoreError as error:
            return Stopped(str(error))

    def __reduce__(self) -> Any:
        return _arrive, (self.location, self.quiet, __version__)


@cache
def _arrive(location: str, quiet: bool, version: str) -> WorkFunction | Callable[[Order], Stopped]:
    """The function in a process of its own, with the plugins that are installed there: opened before the first order."""
    try:
        worker = _open_worker(location, quiet, version)
    except AmbError as error:
        stopped = Stopped(str(error))
    except Exception as error:  # noqa: BLE001 (a broken environment can raise anything)
        stopped = Stopped(
            f"A worker cannot begin: {type(error).__name__}: {error}. Install the same packages everywhere."
        )
    else:
        return WorkFunction(lambda: worker, location, quiet)
    return lambda _: stopped


def _open_worker(location: str, quiet: bool, version: str) -> Worker:
    import torch  # noqa: F401 (it takes seconds, which are no step's)

    if version != __version__:
        raise PluginError(f"A worker has amb {__version__} and the driver {version}: install the same on both.")
    return Worker(open_store(location, make_progress(quiet).say), manager().registry, Silent())
