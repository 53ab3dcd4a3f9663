"""`amb compare`: methods pair by pair, on the suspects that both were read on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from amb.cli import options
from amb.report.layouts.compare import KINDS

if TYPE_CHECKING:
    from amb.api.types import SuspectKind

_KINDS = "\n".join(f"  {name:<9} {about}" for name, about in KINDS.items())
EPILOG = f"""
\b
Examples:
  amb compare spread-features activemark
  amb compare activemark advtra ipguard --sweep table2 --format markdown
  amb compare spread-features activemark --kind negative --format json

\b
Kinds of suspects:
{_KINDS}
"""


@click.command(name="compare", epilog=EPILOG)
@click.argument("methods", nargs=-1, metavar="[METHOD]...")
@options.output_dir
@options.sweep
@options.runs
@click.option("--kind", type=click.Choice(list(KINDS)), default="positive", show_default=True, help="Which suspects.")
@options.format_
@options.output
def command(
    methods: tuple[str, ...],
    output_dir: Path,
    sweep: str | None,
    runs: tuple[str, ...],
    kind: SuspectKind,
    format_: str,
    output: Path | None,
) -> None:
    """Compare methods on the same suspects: difference in claims, exact tests, and what so few could show.

    A METHOD is a spec or a preset; without any, all that have results are compared, every two of them.
    """
    from amb.plugin.manager import manager
    from amb.report.formats import reporter_of
    from amb.report.layouts import add_tables
    from amb.report.layouts.compare import compare_all
    from amb.results.collect import collect
    from amb.results.result_set import parse_results
    from amb.results.select import choose_methods

    registry = manager().registry
    reporter = reporter_of(format_, registry)
    document = collect(output_dir, sweep, runs)
    results = parse_results(document)
    tables = compare_all(results, choose_methods(results, methods, registry), kind)
    options.write(reporter.render(add_tables(document, tables)), output, "comparison")
