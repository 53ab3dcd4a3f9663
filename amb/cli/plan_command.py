"""`amb plan`: what a run would fetch, compute and take, before it begins."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import click

from amb.cli import options

if TYPE_CHECKING:
    from amb.api.plan import Plan
    from amb.execution.cost import MeasuredStep
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
    from amb.execution import cost
    from amb.plugin.manager import manager
    from amb.report.formats import reporter_of
    from amb.report.layouts.cost import cost_to_json, fetch_table, work_table
    from amb.runtime.wording import count

    registry = manager().registry
    reporter = reporter_of(format_, registry)
    fetches = cost.list_fetches(plan, registry)
    step = _measure_owner(plan, compute()) if measure else None
    items = cost.list_work(plan, step.facts) if step else []
    tables = [*([fetch_table(fetches)] if fetches else []), *([work_table(items, step)] if step else [])]
    document = {
        "schema": 1,
        "plan": {"suite": plan.suite.canonical(), "owner": plan.owner, "cells": plan.n_cells}
        | cost_to_json(fetches, items, step),
        "tables": [table.to_json() for table in tables],
    }
    click.echo(reporter.render(document))
    if format_ == "table":
        methods_on = f"{count(len(plan.methods), 'method')} on {count(len(plan.suspects), 'suspect')} each"
        nothing = "" if fetches else " Nothing has to be fetched."
        click.echo(f"\n{count(plan.n_cells, 'cell')}: {methods_on}.{nothing}")


def _measure_owner(plan: Plan, compute: Compute) -> MeasuredStep:
    from amb.execution.cost import measure_step
    from amb.models.references import load_skeleton
    from amb.plugin.manager import manager

    compute.apply()
    return measure_step(load_skeleton(plan.owner, manager().registry).place(compute), compute.device)
