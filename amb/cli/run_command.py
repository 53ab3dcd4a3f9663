"""`amb run`: the whole protocol for one or more methods and attacks."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from amb.cli import options

if TYPE_CHECKING:
    from amb.api.plan import Plan
    from amb.runtime.compute import Compute

EPILOG = """
\b
Examples:
  amb run --method activemark --attack prune40
  amb run --method activemark --method activemark-contrastive --attack prune:amount=0.3+finetune-cosine --seed 1
  amb run --method activemark --set steps=500 --attack prune40 --format json > result.json

What is finished stays in the output folder: the same command again reads it instead of computing it.
"""


@click.command(name="run", epilog=EPILOG)
@options.planned()
@options.output_dir
@options.store
@options.compute
@options.places
@options.format_
@click.option("--dry-run", is_flag=True, help="Print the cells that would be computed, compute nothing.")
@options.quiet
def command(
    plan: Plan,
    output_dir: Path,
    store: str | None,
    compute: Callable[[], Compute],
    format_: str,
    dry_run: bool,
    quiet: bool,
) -> int:
    """Embed a mark, attack the marked model, read the key on every suspect and decide.

    Every positive suspect (what the attacks make of the marked model) stands beside the suite's negatives:
    independent models, and siblings that come from the same unmarked source. Exit code 1 if a cell failed.
    """
    from amb.execution.execute import check_plan
    from amb.plugin.manager import manager
    from amb.python.runs import run_plan
    from amb.report.formats import reporter_of
    from amb.report.layouts.run import with_run_tables
    from amb.runtime.guard import divert_stdout

    registry = manager().registry
    reporter = reporter_of(format_, registry)
    if dry_run:
        check_plan(plan, registry)
        _print_plan(plan, format_)
        return 0
    with divert_stdout():
        results = run_plan(plan.on(compute()), output_dir, quiet=quiet, store=store)
    click.echo(reporter.render(with_run_tables(results.document)))
    return 0 if results.succeeded else 1


def _print_plan(plan: Plan, format_: str) -> None:
    import json
    from dataclasses import asdict

    from amb.runtime.wording import count

    cells = [asdict(cell) for cell in plan.cells()]
    if format_ == "json":
        click.echo(json.dumps({"schema": 1, "plan": cells}, indent=1))
        return
    for cell in cells:
        kind = "sibling" if cell["sibling"] else cell["kind"]
        click.echo(f"{cell['method']}  {cell['suspect']}  ({kind}; attack {cell['attack']}, seed {cell['seed']})")
    print(f"{count(len(cells), 'cell')}; nothing was computed.", file=sys.stderr)
