"""`amb track`: what MLflow is told of the results beside the runs themselves; so far `amb track sync`."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from amb.cli import options

if TYPE_CHECKING:
    from amb.tracking.sync import SyncedRun

EPILOG = """
\b
Examples:
  amb track sync
  amb track sync --output-dir others --tracking-uri http://127.0.0.1:5000
  amb track sync --sweep table2 --format json
"""


@click.group(name="track", epilog=EPILOG)
def command() -> None:
    """See to it that MLflow has what the results hold."""


@command.command(name="sync", epilog=EPILOG)
@options.output_dir
@options.store
@click.option(
    "--tracking-uri",
    metavar="URI",
    help="Where MLflow is; by default MLFLOW_TRACKING_URI, or mlflow.db in the output folder.",
)
@click.option("--sweep", metavar="NAME", help="Only the runs of this sweep.")
@click.option("--format", "format_", type=click.Choice(["table", "json"]), default="table", show_default=True)
@options.quiet
def sync_command(
    output_dir: Path, store: str | None, tracking_uri: str | None, sweep: str | None, format_: str, quiet: bool
) -> int:
    """Tell MLflow every run, summary and cell of the results that it lacks: each exactly once.

    After a server was away, a process was killed, or another server is to have them too. Asking again tells nothing
    twice. What killed processes have left RUNNING is closed. A run that goes on is left to its own process.
    """
    from amb.plugin.manager import manager
    from amb.runtime.progress import make_progress
    from amb.tracking.connection import print_notice
    from amb.tracking.sync import sync

    if tracking_uri:
        os.environ["MLFLOW_TRACKING_URI"] = tracking_uri
    synced = sync(output_dir, manager().registry, make_progress(quiet), print_notice, sweep, store)
    _print_synced(synced, format_)
    return 1 if any(each.state == "refused" for each in synced) else 0


def _print_synced(synced: Sequence[SyncedRun], format_: str) -> None:
    """What was told of each run, for people or programs."""
    from amb.errors import printable
    from amb.runtime.wording import count

    n_cells, n_told, n_closed = (sum(getattr(each, name) for each in synced) for name in ("cells", "told", "closed"))
    if format_ == "json":
        import json

        runs = [each.to_json() for each in synced]
        click.echo(json.dumps({"cells": n_cells, "told": n_told, "closed": n_closed, "runs": runs}, indent=1))
        return
    for each in synced:
        why = f": {each.reason}" if each.reason else ""
        click.echo(printable(f"{each.run}  {each.state}  {count(each.cells, 'cell')}, {each.told} told now{why}"))
    total = (
        f"{count(len(synced), 'run')}, {count(n_cells, 'cell')}: {n_told} told now, {n_closed} left RUNNING and closed."
    )
    print(total, file=sys.stderr)
