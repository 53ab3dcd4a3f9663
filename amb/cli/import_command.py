"""`amb import`: a bundle of results, verified, beside one's own runs."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from amb.cli import options

EPILOG = """
\b
Examples:
  amb import results.amb.zip
  amb import results.amb.zip --output-dir others && amb report --output-dir others
"""


@click.command(name="import", epilog=EPILOG)
@click.argument("bundle", type=click.Path(path_type=Path, dir_okay=False))
@options.output_dir
def command(bundle: Path, output_dir: Path) -> None:
    """Read a BUNDLE that `amb export` has written, so that `amb report` shows its runs.

    Every digest is verified, and every detection rate, bit error rate, bound and verdict is computed again from the
    wrong symbols. A bundle that does not hold what it says is refused, and nothing is written.
    """
    from amb.results.bundle import read_bundle, write_runs

    runs = read_bundle(bundle)
    new = write_runs(runs, output_dir)
    n_cells = sum(len(run.cells) for run in runs)
    print(f"{bundle}: {n_cells} cells; digests verified, rates computed again and equal.", file=sys.stderr)
    for run, is_new in new.items():
        click.echo(f"{run}  {'imported' if is_new else 'was there already'}")
