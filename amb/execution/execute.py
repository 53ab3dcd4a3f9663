"""Executes plans: one run after the other, their jobs computed by an executor ahead of the engines that ask for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

from amb.api.component import Component
from amb.api.executors import Executor
from amb.api.needs import Needs
from amb.api.plan import Plan
from amb.api.run import Run
from amb.errors import BadParamsError
from amb.execution.dispatch import Dispatcher, Limits
from amb.execution.engine import Engine
from amb.execution.executors.serial import Serial
from amb.execution.identity import identify_plan
from amb.execution.needs import NeedsReckoner
from amb.execution.provenance import find_provenance, name_run
from amb.execution.tally import Tally
from amb.execution.worker import Worker, WorkFunction
from amb.models.references import find_digest
from amb.plugin.manager import Manager
from amb.plugin.registry import Registry
from amb.runtime.progress import Progress, Silent
from amb.runtime.scratch import clear_abandoned
from amb.runtime.wording import count
from amb.runtime.writable import check_writable
from amb.store.store import open_store


@dataclass(frozen=True)
class Way:
    """How a sweep is computed: where, and what a job may cost."""

    executor: Executor = field(default_factory=Serial)
    limits: Limits = field(default_factory=Limits)

    def check(self, plans: Sequence[Plan]) -> None:
        """Raise BadParamsError for what this executor cannot do."""
        if not self.executor.in_process:
            require_importable(plans)
        elif self.limits.step_timeout is not None:
            raise BadParamsError(
                f"The executor {self.executor} computes in the process that asks, which cannot be stopped after "
                f"{self.limits.step_timeout:g} s. Take --executor processes for a --step-timeout."
            )


def execute_plan(
    plan: Plan, manager: Manager, output: Path, progress: Progress, store: str | Path | None = None
) -> Run:
    """Every cell of a plan, one after the other in this process. Raises where nothing could be written or a model is missing.

    `store` is where finished steps are kept, by default in the output folder.
    """
    check_writable(output)
    check_plan(plan, manager.registry)
    clear_abandoned()
    progress.say(
        f"{count(plan.n_cells, 'cell')} of suite {plan.suite} on {plan.compute.device}; results go to {output}"
    )
    run = Run(name_run(plan), plan, output, find_provenance(manager.plugins))
    kept = open_store(store or output / "store", progress.say)
    worker = Worker(kept, manager.registry, progress)
    with Serial().open(WorkFunction(lambda: worker, kept.location), Needs()) as pool:
        do = Dispatcher([plan], pool, lambda _: Needs()).runner_of(0)
        Engine(run, do, kept, manager, progress).execute()
    return run


def execute_sweep(
    name: str,
    plans: Sequence[Plan],
    manager: Manager,
    output: Path,
    way: Way,
    progress: Progress,
    store: str | Path | None = None,
) -> list[Run]:
    """One run after the other; an executor with several workers computes their cells ahead."""
    check_writable(output)
    for plan in plans:
        check_plan(plan, manager.registry)
    way.check(plans)
    clear_abandoned()
    n_cells = sum(plan.n_cells for plan in plans)
    progress.say(f"sweep {name}: {count(n_cells, 'cell')}; results go to {output}")
    tally = Tally(progress, n_cells, sum(len(plan.methods) for plan in plans))
    kept = open_store(store or output / "store", progress.say)
    needs = NeedsReckoner(manager.registry, measure=not way.executor.in_process)
    compute = WorkFunction(
        lambda: Worker(kept, manager.registry, progress), kept.location, isinstance(progress, Silent)
    )
    runs = []
    with way.executor.open(compute, needs.usual(plans[0])) as pool:
        dispatcher = Dispatcher(plans, pool, needs, way.limits, tally.note)
        for index, plan in enumerate(plans):
            facts = {
                **find_provenance(manager.plugins),
                "jobs": pool.places,
                "executor": way.executor.name,
                "plan_digest": identify_plan(plan, manager.registry),
            }
            run = Run(name_run(plan), plan, output, facts, name)
            runs.append(run)
            Engine(run, dispatcher.runner_of(index), kept, manager, progress).execute()
    return runs


def check_plan(plan: Plan, registry: Registry) -> None:
    """Raise where a model is missing or unknown: before anything is computed or written."""
    for ref in plan.references():
        find_digest(ref, registry)


def require_importable(plans: Sequence[Plan]) -> None:
    """Raise BadParamsError for a component that workers could not import: of a notebook, a script, or inside a function."""
    suspects = {id(plan.suspects): plan.suspects for plan in plans}.values()  # seeds share them
    attacks = (attack for each in suspects for suspect in each for attack in suspect.attacks)
    others = (each for plan in plans for each in (plan.suite, *plan.methods))
    for component in {type(each): each for each in chain(others, attacks)}.values():
        _require_module(component)


def _require_module(component: Component) -> None:
    cls = type(component)
    if cls.__module__ == "__main__" or "<locals>" in cls.__qualname__:
        raise BadParamsError(
            f"{component.kind} {component.name} ({cls.__qualname__}) is defined where worker processes cannot import it. "
            "Put its class at the top of a module of its own, or take jobs=1."
        )
