"""`amb calibrate`: many negatives for one method, and the thresholds that they give."""

from __future__ import annotations

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
  amb calibrate --method activemark --suite tiny --negatives 100
  amb calibrate --method ipguard --method advtra --negatives 40 --attack prune40 --format markdown

Negatives are the suite's own and cheap ones made of them: perturbed, fine-tuned for a moment, other draws. Models made
from one source are alike: the tables say how many sources there are, and judge each source by the thresholds of the others.
"""


@click.command(name="calibrate", epilog=EPILOG)
@options.planned(negatives=100)
@options.output_dir
@options.store
@options.compute
@options.places
@options.format_
@options.quiet
def command(
    plan: Plan,
    output_dir: Path,
    store: str | None,
    compute: Callable[[], Compute],
    format_: str,
    quiet: bool,
) -> int:
    """Read a method's key on many innocent models; say which thresholds they give and which claim they support.

    Prints false claims on each class of innocent models, the rate that a suspect has to exceed at several false positive
    rates with the rate of false claims on models that had no part in choosing it, and the tau that innocent models allow.
    """
    from amb.plugin.manager import manager
    from amb.python.runs import run_plan
    from amb.report.formats import reporter_of
    from amb.report.layouts import with_tables
    from amb.results.collect import as_collected
    from amb.runtime.guard import divert_stdout

    reporter = reporter_of(format_, manager().registry)
    with divert_stdout():
        results = run_plan(plan.on(compute()), output_dir, quiet=quiet, store=store)
    click.echo(reporter.render(with_tables(as_collected(results.document), "negatives")))
    return 0 if results.succeeded else 1
