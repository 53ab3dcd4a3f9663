"""`amb sweep`: everything that a file asks for, in one resumable go."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from amb.cli import options

if TYPE_CHECKING:
    from amb.api.plan import Plan
    from amb.runtime.compute import Compute
    from amb.sweeps.definition import Sweep

ASK_ABOVE = 10_000

EPILOG = """
\b
Examples:
  amb sweep benchmarks/paper/table2.yaml
  amb sweep benchmarks/paper/table2.yaml --dry-run
  amb sweep my.yaml --only method=ipguard --only 'attack=prune*' --jobs 2
  amb sweep my.yaml --executor ray --address auto --step-timeout 3600
  amb sweep my.yaml --detach
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
`amb status` says from another shell or machine how far it is, and `amb stop` stops it.
"""


@click.command(name="sweep", epilog=EPILOG)
@click.argument("file", type=click.Path(path_type=Path))
@options.output_dir
@options.store
@options.compute
@options.places
@click.option(
    "-j",
    "--jobs",
    type=click.IntRange(1, 256),
    default=1,
    show_default=True,
    help="Processes, short for --executor processes:workers=N. Cells that are timed should not share a machine.",
)
@click.option("--executor", metavar="SPEC", help="Where to compute: serial, processes, ray, or one of a plugin.")
@click.option("--address", help="Of the executor's cluster, as --executor ray --address auto.")
@click.option(
    "--retries",
    type=click.IntRange(0, 100),
    default=2,
    show_default=True,
    help="How often a step is tried again when its worker dies.",
)
@click.option(
    "--step-timeout",
    type=click.FloatRange(0, min_open=True),
    metavar="SECONDS",
    help="Most that an embedding or a cell may take; then its worker is killed and it fails.",
)
@click.option("--only", multiple=True, metavar="KEY=PATTERN", help="Keep suite, method, attack or seed. Repeatable.")
@click.option("--limit", type=click.IntRange(1), help="The first N suites, methods and seeds, with every attack.")
@click.option("--dry-run", is_flag=True, help="Print the plan and how much of it is in the store; compute nothing.")
@click.option(
    "-y", "--yes", is_flag=True, help=f"Do not ask before more than {ASK_ABOVE:,} cells; look them up in a dry run."
)
@click.option(
    "--detach", is_flag=True, help="Go on as a process of its own that outlives the shell; see amb status, amb stop."
)
@options.format_
@options.quiet
@click.pass_obj
def command(
    arguments: list[str] | None,
    file: Path,
    output_dir: Path,
    store: str | None,
    compute: Callable[[], Compute],
    jobs: int,
    executor: str | None,
    address: str | None,
    retries: int,
    step_timeout: float | None,
    only: tuple[str, ...],
    limit: int | None,
    dry_run: bool,
    yes: bool,
    detach: bool,
    format_: str,
    quiet: bool,
) -> int:
    """Run every cell of a sweep FILE: suites x methods x attacks x seeds.

    The whole file is checked before anything runs. Each embedding and each attacked model is made once, however many
    cells use it. At the end the means over seeds are printed; `amb report` gives other tables from the same results.
    """
    from amb.plugin.manager import manager
    from amb.python.sweeps import pick_way, plan_sweep, run_sweep, select_sweep
    from amb.report.formats import reporter_of
    from amb.report.layouts import with_tables
    from amb.runtime.guard import divert_stdout

    registry = manager().registry
    reporter = reporter_of(format_, registry)
    way = pick_way(jobs, executor, address, retries, step_timeout)
    sweep = select_sweep(file, only, limit)
    n_cells = sweep.n_cells(registry)
    if not dry_run:
        _confirm(n_cells, file, yes)
    elif n_cells > ASK_ABOVE and not yes:
        print(f"{n_cells:,} cells, counted and not looked up in the store: say --yes for that. Nothing was computed.")
        return 0
    if detach and not dry_run:
        from amb.cli.detaching import detach as go_on_alone

        return go_on_alone(arguments, output_dir, sweep.name)
    plans = [plan.on(compute()) for plan in plan_sweep(sweep)]
    if dry_run:
        _print_plan(sweep, plans, output_dir, store)
        return 0
    with divert_stdout():
        results = run_sweep(sweep, plans, output_dir, way, quiet=quiet, store=store)
    click.echo(reporter.render(with_tables(results.document, "summary")))
    return 0 if results.succeeded else 1


def _confirm(n_cells: int, file: Path, yes: bool) -> None:
    """Ask before a product that may be an accident. Raises BadParamsError where nobody can answer."""
    from amb.errors import BadParamsError

    if n_cells <= ASK_ABOVE or yes:
        return
    if not sys.stdin.isatty():
        raise BadParamsError(f"{file} has {n_cells:,} cells. If that is meant, say --yes; nothing was run.")
    click.confirm(f"{file} has {n_cells:,} cells. Run them all?", abort=True, err=True)


def _print_plan(sweep: Sweep, plans: Sequence[Plan], output: Path, store: str | None) -> None:
    """Every plan with its size, and how much of it needs no computing."""
    from amb.execution.preview import preview_plans
    from amb.plugin.manager import manager
    from amb.runtime.wording import count

    found = preview_plans(plans, output, manager().registry, store)
    for plan, n_cells, n_stored in found:
        print(f"suite {plan.suite}, seed {plan.seed}: {count(n_cells, 'cell')}, {n_stored} of them in the store")
    for key in ("methods", "attacks"):
        print(f"{key}: {', '.join(getattr(sweep, key)) or 'none'}")
    n_cells, n_stored = (sum(counts) for counts in zip(*(each[1:] for each in found), strict=True))
    print(f"{count(n_cells, 'cell')}, {n_stored} in the store; nothing was computed.", file=sys.stderr)
