"""`amb stop`: ask the driver of a sweep to stop, from any shell or machine that sees the output folder."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from amb.cli import options

if TYPE_CHECKING:
    from amb.results.status import SweepStatus

HEARD_SECONDS = 15.0
"""How long a driver may take to say that it has heard: it looks each second, where nothing holds it up."""

EPILOG = """
\b
Examples:
  amb stop
  amb stop --output-dir results/table2 --sweep table2
  amb stop --now

\b
Exit codes:
  0  the driver has heard, or is over
  1  it does not answer
  3  no sweep goes on in this folder
"""


@click.command(name="stop", epilog=EPILOG)
@options.output_dir
@click.option("--sweep", metavar="NAME", help="Only this sweep; by default all that go on in the folder.")
@click.option(
    "--now", is_flag=True, help="Do not finish the cells that are being computed; asking twice does the same."
)
def command(output_dir: Path, sweep: str | None, now: bool) -> int:
    """Ask the driver of a sweep to finish what is being computed and to begin nothing more.

    The request is a file in the output folder, so it reaches a driver on another machine too. What is finished stays: the
    same `amb sweep` goes on from there. A driver that does not answer is named, with what to do.
    """
    from amb.errors import MissingError
    from amb.results.status import find_running, request_stop

    running = find_running(output_dir, sweep)
    if not running:
        what = f" '{sweep}'" if sweep else ""
        raise MissingError(f"No sweep{what} goes on in {output_dir}. `amb status` says what has run there.")
    asked = [(each, request_stop(output_dir, each, now=now) or now) for each in running]
    return max(_await_answer(output_dir, each, now=is_now) for each, is_now in asked)


def _await_answer(output: Path, asked: SweepStatus, *, now: bool) -> int:
    """Wait until the driver has heard; say what came of it."""
    from amb.errors import printable
    from amb.results.status import read_statuses

    until = time.monotonic() + HEARD_SECONDS
    who = f"sweep {asked.sweep}, process {asked.process.process} on {asked.process.host}"
    while time.monotonic() < until:
        there = next((each for each in read_statuses(output) if each.driver == asked.driver), None)
        if there is None or there.has_ended or there.is_gone():
            click.echo(printable(f"{who}: over."))
            return 0
        if there.state == "stopping" and not now:
            click.echo(printable(f"{who}: finishes what it is at and stops. Ask again to stop it now."))
            return 0
        time.sleep(0.2)
    how = "It is interrupted" if now else "The request stands, and is heeded when it goes on"
    click.echo(
        printable(
            f"{who}: no answer in {HEARD_SECONDS:.0f} s. {how}; on its machine, `kill {asked.process.process}` does the same."
        )
    )
    return 1
