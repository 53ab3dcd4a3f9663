"""Executes plans: one run after the other, in this process or with workers that compute ahead."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from amb.api.component import Component
from amb.api.plan import Plan
from amb.api.run import Run
from amb.errors import BadParamsError
from amb.execution.engine import Engine
from amb.execution.identity import identify_plan
from amb.execution.jobs import F, Job, JobRunner, Outcome
from amb.execution.provenance import find_provenance, name_run
from amb.execution.steps import Steps
from amb.execution.store import Store, check_writable
from amb.execution.tally import Tally
from amb.execution.workers import Workers
from amb.models.references import find_digest
from amb.plugin.manager import Manager
from amb.plugin.registry import Registry
from amb.runtime.progress import Progress, Silent
from amb.runtime.scratch import clear_abandoned
from amb.runtime.stopping import stop_if_asked
from amb.runtime.wording import count


def execute_plan(plan: Plan, manager: Manager, output: Path, progress: Progress) -> Run:
    """Every cell of a plan, one after the other in this process. Raises where nothing could be written or a model is missing."""
    check_writable(output)
    clear_abandoned()
    run = Run(name_run(plan), plan, output, find_provenance(manager.plugins))
    steps = Steps(plan, Store(output / "store", progress.say), progress, manager.registry)
    progress.say(
        f"{count(plan.n_cells, 'cell')} of suite {plan.suite} on {plan.compute.device}; results go to {output}"
    )
    Engine(run, steps.do, manager, progress).execute()
    return run


def execute_sweep(
    name: str, plans: Sequence[Plan], manager: Manager, output: Path, jobs: int, progress: Progress
) -> list[Run]:
    """One run after the other; with several jobs their cells are computed ahead by workers."""
    check_writable(output)
    for plan in plans:
        check_plan(plan, manager.registry)
    clear_abandoned()
    if jobs > 1:
        require_importable(plans)
    n_cells = sum(plan.n_cells for plan in plans)
    progress.say(f"sweep {name}: {count(n_cells, 'cell')}; results go to {output}")
    tally = Tally(progress, n_cells, sum(len(plan.methods) for plan in plans))
    runs = []
    with _open_runners(plans, manager, output, jobs, progress, tally) as runner_of:
        for index, plan in enumerate(plans):
            plan_digest = identify_plan(plan, manager.registry)
            facts = {**find_provenance(manager.plugins), "jobs": jobs, "plan_digest": plan_digest}
            run = Run(name_run(plan), plan, output, facts, name)
            runs.append(run)
            Engine(run, runner_of(index), manager, progress).execute()
    return runs


def check_plan(plan: Plan, registry: Registry) -> None:
    """Raise where a model is missing or unknown: before anything is computed or written."""
    for ref in plan.references():
        find_digest(ref, registry)


def require_importable(plans: Sequence[Plan]) -> None:
    """Raise BadParamsError for a component that workers could not import: of a notebook, a script, or inside a function."""
    for plan in plans:
        attacks = [attack for suspect in plan.suspects for attack in suspect.attacks]
        for component in (plan.suite, *plan.methods, *attacks):
            _require_module(component)


def _require_module(component: Component) -> None:
    cls = type(component)
    if cls.__module__ == "__main__" or "<locals>" in cls.__qualname__:
        raise BadParamsError(
            f"{component.kind} {component.name} ({cls.__qualname__}) is defined where worker processes cannot import it. "
            "Put its class at the top of a module of its own, or take jobs=1."
        )


@contextmanager
def _open_runners(
    plans: Sequence[Plan], manager: Manager, output: Path, jobs: int, progress: Progress, tally: Tally
) -> Iterator[Callable[[int], JobRunner]]:
    """What computes the jobs of each plan: this process, or workers."""
    if jobs == 1:
        yield lambda index: _make_local_runner(plans[index], manager, output, progress, tally)
        return
    workers = Workers(plans, output / "store", jobs, tally.note, quiet=isinstance(progress, Silent))
    try:
        yield workers.runner_of
    finally:
        workers.stop()


def _make_local_runner(plan: Plan, manager: Manager, output: Path, progress: Progress, tally: Tally) -> JobRunner:
    """Steps in this process, each outcome noted."""
    steps = Steps(plan, Store(output / "store", progress.say), progress, manager.registry)

    def run_job(job: Job[F]) -> Outcome[F]:
        stop_if_asked()
        outcome = steps.do(job)
        tally.note(plan, job, outcome)
        return outcome

    return run_job
