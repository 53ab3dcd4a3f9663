"""`amb figure`: one figure of finished runs as a file for a paper."""

from __future__ import annotations

from pathlib import Path

import click

from amb.cli import options
from amb.report.figures import ENDINGS, FIGURE_KINDS

_KINDS = "\n".join(f"  {name:<16} {kind.summary}" for name, kind in FIGURE_KINDS.items())
EPILOG = f"""
\b
Examples:
  amb figure detection-curve --sweep table2 --method activemark -o curves.pdf
  amb figure pareto --sweep robustness -o pareto.svg

\b
Kinds:
{_KINDS}
"""


@click.command(name="figure", epilog=EPILOG)
@click.argument("kind")
@options.output_dir
@options.sweep
@options.runs
@click.option("--method", "methods", multiple=True, metavar="SPEC", help="Only this method. Repeatable.")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    required=True,
    help=f"File to write; ends in {', '.join(ENDINGS[:-1])} or {ENDINGS[-1]}.",
)
def command(
    kind: str, output_dir: Path, sweep: str | None, runs: tuple[str, ...], methods: tuple[str, ...], output: Path
) -> None:
    """Draw finished runs in the width of a paper's column, with fonts inside the file.

    Prints where the file is. Nothing is computed again.
    """
    from amb.plugin.manager import manager
    from amb.report.figures import check_ending, draw, save
    from amb.results.collect import collect
    from amb.results.result_set import parse_results
    from amb.results.select import choose_methods

    check_ending(output)
    registry = manager().registry
    results = parse_results(collect(output_dir, sweep, runs), registry.describe_attack)
    wanted = choose_methods(results, methods, registry)
    save(draw(kind, results.with_cells([cell for cell in results.cells if cell.method in wanted])), output)
    click.echo(output)
