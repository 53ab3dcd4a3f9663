"""`amb status`: how far the sweeps of an output folder are, from any shell or machine that sees the folder."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from amb.cli import options

if TYPE_CHECKING:
    from amb.results.status import SweepStatus

WATCH_SECONDS = 2.0

EPILOG = """
\b
Examples:
  amb status
  amb status --output-dir results/table2 --watch
  amb status --sweep table2 --format json

\b
Exit codes:
  0  a sweep goes on, or has finished
  1  it was stopped, has failed, or its driver is gone: the same `amb sweep` goes on from there
  3  no sweep has run in this folder
"""


@click.command(name="status", epilog=EPILOG)
@options.output_dir
@click.option("--sweep", metavar="NAME", help="Only this sweep; by default all that have run in the folder.")
@click.option("--watch", is_flag=True, help="Look again every other second, until nothing goes on any more.")
@click.option("--format", "format_", type=click.Choice(["table", "json"]), default="table", show_default=True)
def command(output_dir: Path, sweep: str | None, watch: bool, format_: str) -> int:
    """Say how far a sweep is: cells done, running, failed and left, its pace, and when it may be over.

    The driver of a sweep says so in the output folder. A driver of this machine that was killed is known to be gone; one of
    another machine is taken to be where it has said nothing for half a minute. With `--watch --format json` every look is a
    line.
    """
    from amb.results.status import require_statuses

    found = require_statuses(output_dir, sweep)
    shown = 0
    while watch and any(not each.has_ended and not each.is_gone() for each in found):
        shown = _show(found, format_, shown)
        time.sleep(WATCH_SECONDS)
        found = require_statuses(output_dir, sweep)
    _show(found, format_, shown, is_line=watch)
    latest = {each.sweep: each for each in found}.values()
    return 1 if any(each.is_gone() or each.state in ("stopped", "failed") for each in latest) else 0


def _show(found: Sequence[SweepStatus], format_: str, over: int, *, is_line: bool = True) -> int:
    """Print, on a terminal over the last look; how many lines that took."""
    import json

    from amb.errors import printable

    if format_ == "json":
        said = {"sweeps": [each.to_json() for each in found]}
        click.echo(json.dumps(said) if is_line else json.dumps(said, indent=1))
        return 0
    lines = [line for each in found for line in describe(each)]
    if over and sys.stdout.isatty():
        click.echo(f"\x1b[{over}F\x1b[J", nl=False)
    click.echo("\n".join(map(printable, lines)))
    return len(lines)


def describe(status: SweepStatus) -> list[str]:
    """A status in two lines."""
    from amb.runtime.wording import count

    kept = f", {status.kept:,} of finished runs" if status.kept else ""
    pace = f"; {status.per_minute:,.1f} cells a minute" if status.per_minute else ""
    rest = status.seconds_left
    end = f", about {_spell_seconds(rest)} left" if rest and not status.has_ended and not status.is_gone() else ""
    counts = (
        f"{status.done:,} done ({status.cached:,} from the store{kept}), {status.running:,} running, "
        f"{status.failed:,} failed, {status.skipped:,} skipped, {status.left:,} left"
    )
    return [
        f"sweep {status.sweep}: {_describe_state(status)}",
        f"  {count(status.cells, 'cell')}: {counts}{pace}{end}",
    ]


def _describe_state(status: SweepStatus) -> str:
    whose = f"process {status.process.process} on {status.process.host}"
    log = f"; log {status.log}" if status.log else ""
    if status.is_gone():
        how = "is gone" if status.process.is_here else f"has said nothing for {_spell_seconds(status.silent_for())}"
        return f"its driver, {whose}, {how}; the same `amb sweep` goes on from there{log}"
    if status.state == "failed":
        return f"failed: {status.reason}{log}"
    if status.has_ended:
        return f"{status.state}{log}"
    at = f", at {status.at}" if status.at else ""
    late = f", silent for {_spell_seconds(status.silent_for())}" if status.silent_for() > 15 else ""
    return f"{status.state}, {whose}{late}{at}{log}"


def _spell_seconds(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 90 * 60 else f"{seconds / 3600:.1f} h"
