"""`amb report`: tables or a whole page from finished runs; nothing is computed again."""

from __future__ import annotations

from pathlib import Path

import click

from amb.cli import options
from amb.report.layouts import DEFAULT, LAYOUTS, with_tables

_LAYOUTS = "\n".join(f"  {name:<14} {layout.shows}" for name, layout in LAYOUTS.items())
EPILOG = f"""
\b
Examples:
  amb report
  amb report --sweep table2 --layout paper-table2 --format markdown
  amb report --group-by method,kind --format csv > means.csv
  amb report --layout cells --format csv > cells.csv
  amb report --sweep robustness --format html -o report.html

HTML without --layout is the whole report: summary, figures, tables, attacks, every cell, provenance.

\b
Layouts; what there is without --layout is {DEFAULT}:
{_LAYOUTS}
"""


@click.command(name="report", epilog=EPILOG)
@options.output_dir
@options.sweep
@options.runs
@click.option("--layout", help="Which tables; see below.")
@click.option("--group-by", metavar="COLUMNS", help="Columns of the layout summary, such as method,kind.")
@options.format_
@options.output
def command(
    output_dir: Path,
    sweep: str | None,
    runs: tuple[str, ...],
    layout: str | None,
    group_by: str | None,
    format_: str,
    output: Path | None,
) -> None:
    """Print tables of finished runs, or write all of it as one page.

    A cell that several runs have judged is taken from the latest of them.
    """
    from amb.api.digests import finite
    from amb.plugin.manager import manager
    from amb.report.formats import reporter_of
    from amb.results.collect import collect

    registry = manager().registry
    reporter = reporter_of(format_, registry)
    by = [name.strip() for name in group_by.split(",")] if group_by else []
    document = collect(output_dir, sweep, runs)
    if layout or by or not reporter.whole:
        document = with_tables(document, layout or DEFAULT, by, registry.describe_attack)
    text = reporter.render(finite(document) if reporter.whole else document)
    options.write(text, output, "report")
