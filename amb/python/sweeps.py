"""A sweep from Python: a file, a mapping of the same form, or a Sweep."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from amb.api.component import source_digest
from amb.api.executors import Executor
from amb.api.plan import Plan
from amb.errors import BadParamsError
from amb.execution.dispatch import Limits
from amb.execution.execute import Way, execute_sweep
from amb.execution.executors.processes import Processes
from amb.execution.executors.serial import Serial
from amb.execution.identity import identify_plan
from amb.models.references import require_models
from amb.plugin.manager import manager
from amb.python.notebook import pick_progress
from amb.python.results import Results
from amb.python.runs import DEFAULT_OUTPUT
from amb.results.collect import collect_runs, find_runs
from amb.results.driver import begin_status, driving
from amb.results.finished import FinishedRun, find_finished
from amb.results.status import find_unended
from amb.runtime.compute import Compute, pick_compute
from amb.runtime.progress import Progress, open_bar
from amb.runtime.wording import count
from amb.runtime.writable import check_writable
from amb.store.lookup import Lookup
from amb.sweeps.definition import Sweep
from amb.sweeps.reader import check_sweep, read_sweep

LOG: Final = "AMB_SWEEP_LOG"
"""Variable: where what a detached sweep says goes."""


def sweep(
    definition: str | Path | Mapping[str, Any] | Sweep,
    *,
    jobs: int = 1,
    executor: str | Executor | None = None,
    retries: int = 2,
    step_timeout: float | None = None,
    only: Sequence[str] = (),
    limit: int | None = None,
    output_dir: str | Path = DEFAULT_OUTPUT,
    store: str | Path | None = None,
    device: str = "auto",
    compute: Compute | None = None,
    quiet: bool = False,
) -> Results:
    """Every cell of suites x methods x attacks x seeds: what `amb sweep` does.

    `definition` is the path of a YAML file, a mapping with the same keys, or an `amb.Sweep`, which may hold components of
    one's own. `only` keeps what matches `key=pattern`, `limit` the first suites, methods and seeds. `executor`
    says where it is computed: `processes:workers=2`, which is `jobs=2`, `ray`, or an executor of one's own; then every
    component has to be importable there. A step whose worker dies is tried `retries` times again, and one that takes more
    than `step_timeout` seconds fails. `store` is where finished steps are kept: a folder, or a URL such as
    `s3://bucket/folder`; by default it lies in `output_dir`. Raises AmbError.
    """
    way = pick_way(jobs, executor, retries=retries, step_timeout=step_timeout)
    chosen = select_sweep(definition, only, limit)
    plans = [plan.on(compute or pick_compute(device)) for plan in plan_sweep(chosen)]
    return run_sweep(chosen, plans, Path(output_dir), way, quiet=quiet, store=store)


def pick_way(
    jobs: int = 1,
    executor: str | Executor | None = None,
    address: str | None = None,
    retries: int = 2,
    step_timeout: float | None = None,
) -> Way:
    """How to compute: `jobs` is short for an executor, `address` for a parameter of one. Raises UsageError."""
    if jobs < 1:
        raise BadParamsError(f"jobs is how many processes compute, 1 or more (got {jobs}).")
    if retries < 0:
        raise BadParamsError(f"retries is how often a step is tried again, 0 or more (got {retries}).")
    if step_timeout is not None and not step_timeout > 0:
        raise BadParamsError(f"A step may take more than 0 seconds (got a step timeout of {step_timeout:g}).")
    if executor is None:
        executor = Processes.create({"workers": jobs}) if jobs > 1 else Serial()
    elif jobs > 1:
        raise BadParamsError(
            f"{jobs} jobs are short for the executor processes:workers={jobs}, and {executor} was asked for too. Give one."
        )
    if address is not None:
        executor = manager().registry.executor(str(executor), {"address": address})
    return Way(manager().registry.executor(executor), Limits(retries, step_timeout))


def select_sweep(definition: str | Path | Mapping[str, Any] | Sweep, only: Sequence[str], limit: int | None) -> Sweep:
    """The sweep, read and checked, and what is wanted of it. Raises UsageError."""
    registry = manager().registry
    if isinstance(definition, Mapping):
        found = check_sweep(definition, registry)
    else:
        found = definition if isinstance(definition, Sweep) else read_sweep(Path(definition), registry)
    found = found.only(only)
    return found.limited(limit) if limit else found


def plan_sweep(chosen: Sweep) -> list[Plan]:
    """A plan for each suite and seed. Raises where a model is unknown, or missing and not to be had."""
    registry = manager().registry
    plans = chosen.plans(registry)
    for plan in plans:
        require_models(plan.references(), registry)
    return plans


def run_sweep(
    chosen: Sweep,
    plans: Sequence[Plan],
    output: Path,
    way: Way,
    *,
    quiet: bool = False,
    store: str | Path | None = None,
) -> Results:
    """Every cell of the plans, in this process or ahead of it in workers. A plan that has a whole run is not gone through."""
    progress = pick_progress(quiet)
    check_writable(output)
    finished = _find_finished(chosen.name, plans, output, store or output / "store", progress)
    left = [plan for plan, run in zip(plans, finished, strict=True) if run is None]
    kept = sum(run.n_cells for run in finished if run)
    status = begin_status(chosen.name, sum(plan.n_cells for plan in plans), kept, os.environ.get(LOG))
    with (
        driving(output, status, progress.say) as driver,
        open_bar(progress, f"sweep {chosen.name}", status.cells) as driver.show,
    ):
        if not left and find_unended(output, chosen.name):  # killed when all was there: nobody else would say so
            driver.start(workers=0)
        runs = execute_sweep(chosen.name, left, manager(), output, way, progress, store) if left else []
    succeeded = not any(each.failed for each in runs)
    made = find_runs(output, runs=[each.id for each in runs]) if runs else []
    collected = sorted([*filter(None, finished), *made], key=lambda run: run.id)
    return Results(collect_runs(collected), output, succeeded=succeeded)


def _find_finished(
    sweep: str, plans: Sequence[Plan], output: Path, store: str | Path, progress: Progress
) -> list[FinishedRun | None]:
    """The whole run of each plan that has one."""
    if not (output / "runs").is_dir():
        return [None] * len(plans)
    source_digest.cache_clear()
    digests = [identify_plan(plan, manager().registry) for plan in plans]
    found = find_finished(output, sweep, set(digests), Lookup(store).list_digests("evidence"))
    if found:
        n_cells = sum(run.n_cells for run in found.values())
        progress.say(
            f"sweep {sweep}: {count(n_cells, 'cell')} of {count(len(found), 'finished run')} taken as they are; "
            f"{len(plans) - len(found)} of {count(len(plans), 'run')} left"
        )
    return [found.get(digest) for digest in digests]
