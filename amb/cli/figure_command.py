"""`amb figure`: one figure of finished runs as a file for a paper."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from amb.cli import options
from amb.report.figures import ENDINGS, FIGURE_KINDS

if TYPE_CHECKING:
    from amb.results.result_set import ResultSet

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
@click.option("--sweep", metavar="NAME", help="Only the runs of this sweep.")
@click.option("--run", "runs", multiple=True, metavar="ID", help="Only this run. Repeatable.")
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
    from amb.report.figures import check_ending, draw, save
    from amb.results.collect import collect
    from amb.results.result_set import parse_results

    check_ending(output)
    results = parse_results(collect(output_dir, sweep, runs))
    save(draw(kind, _select_methods(results, methods)), output)
    click.echo(output)


def _select_methods(results: ResultSet, methods: Sequence[str]) -> ResultSet:
    """The cells of these methods, all where none is named. Raises BadParamsError for one without results."""
    from amb.errors import BadParamsError, near_names

    known = list(dict.fromkeys(cell.method for cell in results.cells))
    wanted = [name if name in known else _expand_spec(name) for name in methods]
    for name in wanted:
        if name not in known:
            there = f"There are: {', '.join(known)}."
            raise BadParamsError(f"There are no results of method '{name}'.{near_names(name, known)} {there}")
    return results.with_cells([cell for cell in results.cells if not wanted or cell.method in wanted])


def _expand_spec(text: str) -> str:
    """A preset or a spec with defaults spelt out, as results name it; the text itself where nothing is called so."""
    from amb.errors import UsageError
    from amb.plugin.manager import manager

    try:
        return manager().registry.method(text).canonical()
    except UsageError:
        return text
