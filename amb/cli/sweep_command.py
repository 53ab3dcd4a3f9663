"""`amb sweep`: everything that a file asks for, in one resumable go."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import click

from amb.cli import options

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from amb.execution.engine import Run
    from amb.execution.planning import Plan
    from amb.execution.steps import Job, Outcome
    from amb.execution.store import Store
    from amb.runtime.compute import Compute
    from amb.runtime.progress import Progress
    from amb.sweeps.definition import Sweep

ASK_ABOVE = 10_000

EPILOG = """
\b
Examples:
  amb sweep benchmarks/paper/table2.yaml
  amb sweep benchmarks/paper/table2.yaml --dry-run
  amb sweep my.yaml --only method=ipguard --only 'attack=prune*' --jobs 2
  amb report --sweep table2 --format markdown

A file names suites, methods, attacks and seeds; lists are axes:

\b
  suites: tiny
  methods:
    - ipguard
    - activemark: {block: [1, 2, 3]}
  attacks: [prune40, prune40+finetune-cosine]
  seeds: [0, 1, 2]

What is finished stays in the output folder: the same command goes on where it was stopped or killed.
"""


@click.command(name="sweep", epilog=EPILOG)
@click.argument("file", type=click.Path(path_type=Path))
@options.output_dir
@options.compute
@options.places
@click.option(
    "-j",
    "--jobs",
    type=click.IntRange(1, 256),
    default=1,
    show_default=True,
    help="Processes. Cells that are timed should not share a machine: leave it at 1 for them.",
)
@click.option("--only", multiple=True, metavar="KEY=PATTERN", help="Keep suite, method, attack or seed. Repeatable.")
@click.option("--limit", type=click.IntRange(1), help="The first N suites, methods and seeds, with every attack.")
@click.option("--dry-run", is_flag=True, help="Print the plan and how much of it is in the store; compute nothing.")
@click.option("-y", "--yes", is_flag=True, help=f"Do not ask before more than {ASK_ABOVE:,} cells.")
@options.format_
@options.quiet
def command(
    file: Path,
    output_dir: Path,
    compute: Callable[[], Compute],
    jobs: int,
    only: tuple[str, ...],
    limit: int | None,
    dry_run: bool,
    yes: bool,
    format_: str,
    quiet: bool,
) -> int:
    """Run every cell of a sweep FILE: suites x methods x attacks x seeds.

    The whole file is checked before anything runs. Each embedding and each attacked model is made once, however many
    cells use it. At the end the means over seeds are printed; `amb report` gives other tables from the same results.
    """
    from amb.execution.steps import Steps
    from amb.execution.store import check_writable
    from amb.models.references import require_refs
    from amb.plugin.manager import manager
    from amb.report.formats import reporter_of
    from amb.report.layouts import with_tables
    from amb.results.collect import collect
    from amb.runtime.progress import make_progress
    from amb.sweeps.reader import read_sweep

    registry = manager().registry
    reporter = reporter_of(format_, registry)
    sweep = read_sweep(file, registry).only(only)
    sweep = sweep.limited(limit) if limit else sweep
    progress = make_progress(quiet)
    n_cells = sweep.n_cells(registry)
    plans = sweep.plans(registry) if dry_run or _agreed(n_cells, file, yes) else []
    for plan in plans:
        require_refs(plan.references())
    how = compute()
    plans = [plan.on(how) for plan in plans]
    if dry_run:
        _print_plan(sweep, plans, output_dir)
        return 0
    check_writable(output_dir)
    for plan in plans:  # a model that is missing stops the sweep before anything is computed
        Steps(plan, _store(output_dir, progress), progress)
    progress.say(f"sweep {sweep.name}: {n_cells} cells; results go to {output_dir}")
    runs = _execute(sweep, plans, output_dir, jobs, progress, n_cells)
    click.echo(reporter.render(with_tables(collect(output_dir, runs=[run.id for run in runs]), "summary")))
    return 1 if any(run.failed for run in runs) else 0


def _agreed(n_cells: int, file: Path, yes: bool) -> bool:
    """Ask before a product that may be an accident. Raises BadParamsError where nobody can answer."""
    from amb.errors import BadParamsError

    if n_cells <= ASK_ABOVE or yes:
        return True
    if not sys.stdin.isatty():
        raise BadParamsError(f"{file} has {n_cells:,} cells. If that is meant, say --yes; nothing was run.")
    return click.confirm(f"{file} has {n_cells:,} cells. Run them all?", abort=True, err=True)


def _execute(
    sweep: Sweep, plans: Sequence[Plan], output: Path, jobs: int, progress: Progress, n_cells: int
) -> list[Run]:
    """One run after the other; with several jobs their cells are computed ahead by workers."""
    from amb.execution.engine import Engine, Run
    from amb.plugin.manager import manager
    from amb.results.document import run_facts, run_id

    runs = []
    n_embeddings = sum(len(plan.methods) for plan in plans)
    with _doers(plans, output, jobs, progress, _Tally(progress, n_cells, n_embeddings)) as do_of:
        for index, plan in enumerate(plans):
            facts = {**run_facts(manager().plugins), "jobs": jobs}
            run = Run(run_id(plan), plan, output, facts, sweep.name)
            runs.append(run)
            Engine(run, do_of(index), manager(), progress).execute()
    return runs


@contextmanager
def _doers(
    plans: Sequence[Plan], output: Path, jobs: int, progress: Progress, tally: _Tally
) -> Iterator[Callable[[int], Callable[[Job], Outcome]]]:
    """What computes the jobs of each plan: this process, or workers."""
    from amb.execution.steps import Steps
    from amb.execution.workers import Workers
    from amb.runtime.progress import Silent

    if jobs == 1:
        yield lambda index: tally.counting(plans[index], Steps(plans[index], _store(output, progress), progress).do)
        return
    workers = Workers(plans, output / "store", jobs, tally.note, quiet=isinstance(progress, Silent))
    try:
        yield workers.do_of
    finally:
        workers.stop()


@dataclass
class _Tally:
    """Says what was computed as it comes in, and how long the rest may take."""

    progress: Progress
    n_cells: int
    n_embeddings: int
    n_read: int = 0
    n_done: int = 0
    n_computed: int = 0
    started: float = field(default_factory=time.monotonic)

    def counting(self, plan: Plan, do: Callable[[Job], Outcome]) -> Callable[[Job], Outcome]:
        """`do`, with each outcome noted."""

        def counted(job: Job) -> Outcome:
            outcome = do(job)
            self.note(plan, job, outcome)
            return outcome

        return counted

    def note(self, plan: Plan, job: Job, outcome: Outcome) -> None:
        """Count a cell; say one line of whatever was not in the store."""
        from amb.execution.steps import describe

        if job.kind == "profile":
            return
        self.n_read += job.kind == "measure"
        self.n_done += 1
        if outcome.facts.get("cached"):
            return
        self.n_computed += 1
        what = f"{describe(plan, job)}, seed {plan.seed}"
        self.progress.say(f"{self.n_read} of {self.n_cells} cells: {what}: {_came_of(job, outcome)}{self._left()}")

    def _left(self) -> str:
        """As if nothing of the rest were in the store."""
        n_left = self.n_cells + self.n_embeddings - self.n_done
        rest = (time.monotonic() - self.started) / self.n_computed * n_left
        return f"; about {rest / 60:.0f} min left" if rest > 90 else f"; about {rest:.0f} s left"


def _came_of(job: Job, outcome: Outcome) -> str:
    if outcome.status != "ok":
        return outcome.status
    if job.kind == "embed":
        return f"{outcome.facts['seconds']:.1f} s"
    seconds = outcome.facts["seconds"]
    return f"{seconds['attack']:.1f} s to attack, {seconds['extract']:.1f} s to extract"


def _print_plan(sweep: Sweep, plans: Sequence[Plan], output: Path) -> None:
    """Every plan with its size, and how much of it needs no computing."""
    from amb.execution.steps import Job, Steps
    from amb.execution.store import Lookup
    from amb.runtime.progress import Silent

    n_stored = n_cells = 0
    for plan in plans:
        steps = Steps(plan, Lookup(output / "store"), Silent())
        jobs = [Job("measure", m, s) for m in range(len(plan.methods)) for s in range(len(plan.suspects))]
        stored = sum(steps.do(job).status != "failed" for job in jobs)
        print(f"suite {plan.suite}, seed {plan.seed}: {len(jobs)} cells, {stored} of them in the store")
        n_stored, n_cells = n_stored + stored, n_cells + len(jobs)
    for key in ("methods", "attacks"):
        print(f"{key}: {', '.join(getattr(sweep, key)) or 'none'}")
    print(f"{n_cells} cells, {n_stored} in the store; nothing was computed.", file=sys.stderr)


def _store(output: Path, progress: Progress) -> Store:
    from amb.execution.store import Store

    return Store(output / "store", progress.say)
