"""A step of a plan that is computed once: its address in the store, its context, and the models that it needs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, Final, Literal

from amb import __version__
from amb.api.context import Context
from amb.api.plan import Plan
from amb.api.types import Role
from amb.models.cache import ModelCache, ModelHandle
from amb.plugin.registry import Registry
from amb.runtime.batch_size import BatchSizeLimiter
from amb.runtime.compute import Compute
from amb.runtime.progress import Progress
from amb.runtime.scratch import open_scratch
from amb.store.entries import StoreEntry
from amb.store.store import Store

Stage = Literal["embed", "attack", "extract", "utility", "classifier"]

ROLES: Final[dict[Stage, tuple[Role, ...]]] = {
    "embed": ("owner", "trigger"),
    "attack": ("attacker",),
    "extract": (),
    "utility": ("attacker", "test"),
    "classifier": ("owner",),
}
"""Which splits each stage may see."""
SEEDLESS: Final = ("utility", "classifier")
"""Stages that belong to the suite and are the same at every seed."""


class StepSkipped(Exception):  # noqa: N818 (not an error)
    """Raised inside a step that does not apply; its text is the reason."""


def open_models(compute: Compute, progress: Progress, registry: Registry) -> ModelCache:
    """The models of one process, which learn together how many images fit."""
    return ModelCache(registry, compute, BatchSizeLimiter("reading", compute.max_batch, progress.say))


class CachedSteps:
    """Runs steps of one plan in this process; what the store holds is not computed."""

    def __init__(
        self, plan: Plan, store: Store, progress: Progress, registry: Registry, models: ModelCache | None = None
    ) -> None:
        """`models` is shared by the plans of one worker; without it there is one of this plan's own."""
        self.plan = plan
        self.device = plan.compute.device
        self._store = store
        self._progress = progress
        plan.compute.apply()
        # What every step depends on beside its own inputs. The seed is an input of those that draw random numbers.
        self._base = {"amb": __version__, "suite": plan.suite.definition(), **plan.compute.definition()}
        self.models = models or open_models(plan.compute, progress, registry)
        self._training_limiter = BatchSizeLimiter("training", plan.compute.max_batch, progress.say)
        self.find_model = cache(self.models.of_ref)
        """The model that a reference names; some loaders read a whole file to find its digest."""

    def run(self, kind: str, inputs: Mapping[str, Any], make: Callable[[Path], Mapping[str, Any]]) -> StoreEntry:
        """What the store holds for these inputs; made first where it holds nothing."""
        return self._store.get_or_make(kind, {**self._base, **inputs}, make)

    def open_model(self, entry: StoreEntry, ref: str) -> ModelHandle:
        """The model that a step has put into the store."""
        return self.models.of_file(entry.folder / "model", ref, entry.facts["model"])

    @contextmanager
    def context(self, stage: Stage, *axes: str) -> Iterator[Context]:
        """The context of one step, with a scratch folder that is removed when the step is over."""
        splits = {role: self.plan.suite.split(role) for role in ROLES[stage]}
        seed = "any seed" if stage in SEEDLESS else str(self.plan.seed)
        names = (seed, stage, self.plan.suite.canonical(), *axes)
        with open_scratch() as folder:
            yield Context(names, splits, folder, self.plan.compute, self._training_limiter, self._progress)
