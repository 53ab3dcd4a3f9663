"""`amb plan`: what a run would fetch, compute and take, before it begins."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import click

from amb.cli import options

if TYPE_CHECKING:
    from amb.execution.cost import Step
    from amb.execution.planning import Plan
    from amb.runtime.compute import Compute

EPILOG = """
\b
Examples:
  amb plan --method activemark --attack prune40
  amb plan --suite paper-dinov2 --method activemark --attack finetune-cosine --device cuda --precision bf16
  amb plan --suite paper-clip --method activemark --no-measure --format json
"""


@click.command(name="plan", epilog=EPILOG)
@options.planned()
@click.option("--measure/--no-measure", default=True, show_default=True, help="Time one step of the owner's network.")
@options.compute
@options.places
@options.format_
def command(
    plan: Plan,
    measure: bool,
    compute: Callable[[], Compute],
    format_: str,
) -> None:
    """Say what a run would download, how many cells it has, and what it costs in FLOPs, memory and time.

    One step of the owner's network is timed on the device, with untrained weights where its own are not here. Nothing is
    fetched, and nothing is written.
    """
    from amb.execution import cost as reckon
    from amb.plugin.manager import manager
    from amb.report.formats import reporter_of

    reporter = reporter_of(format_, manager().registry)
    fetches = reckon.fetches_of(plan)
    step = _measured(plan, compute()) if measure else None
    shares = reckon.shares_of(plan, step.facts) if step else []
    tables = [
        *([reckon.fetch_table(fetches)] if fetches else []),
        *([reckon.work_table(shares, step)] if step else []),
    ]
    document = {
        "schema": 1,
        "plan": {"suite": plan.suite.canonical(), "owner": plan.owner, "cells": len(plan.cells())}
        | reckon.to_json(fetches, shares, step),
        "tables": [table.to_json() for table in tables],
    }
    click.echo(reporter.render(document))
    if format_ == "table":
        methods_on = f"{len(plan.methods)} methods on {len(plan.suspects)} suspects each"
        nothing = "" if fetches else " Nothing has to be fetched."
        click.echo(f"\n{len(plan.cells())} cells: {methods_on}.{nothing}")


def _measured(plan: Plan, compute: Compute) -> Step:
    from amb.execution.cost import measure_step
    from amb.models.references import outline_ref

    compute.apply()
    return measure_step(compute.place(outline_ref(plan.owner)), compute.device)
