"""`amb export`: runs as one file that can be sent, verified and read by others; without keys."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from amb.cli import options

EPILOG = """
\b
Examples:
  amb export -o results.amb.zip
  amb export --sweep robustness -o robustness.amb.zip

The bundle holds versions, cells and which symbols were wrong; never keys, messages, models or images.
"""


@click.command(name="export", epilog=EPILOG)
@options.output_dir
@options.store
@click.option("--sweep", metavar="NAME", help="Only the runs of this sweep.")
@click.option("--run", "runs", multiple=True, metavar="ID", help="Only this run. Repeatable.")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    required=True,
    help="Write the bundle to this file.",
)
def command(output_dir: Path, store: str | None, sweep: str | None, runs: tuple[str, ...], output: Path) -> None:
    """Write a bundle of results: JSON and npz in a zip, verified by digest.

    Every rate in it can be computed again by whoever gets it. Prints the bundle's digest.
    """
    from amb.results.bundle import own_runs, write_bundle

    found = own_runs(output_dir, sweep, runs, store)
    digest = write_bundle(found, output)
    n_cells = sum(len(run.cells) for run in found)
    print(f"{output}: {len(found)} runs, {n_cells} cells, {output.stat().st_size:,} bytes.", file=sys.stderr)
    click.echo(digest)
