"""`amb figure`: one figure of finished runs as a file for a paper."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from amb.cli import options

EPILOG = """
\b
Examples:
  amb figure detection-curve --sweep table2 --method activemark -o curves.pdf
  amb figure pareto --sweep robustness -o pareto.svg

\b
Kinds:
  detection-curve  R(tau) by tau with intervals, suspects and innocents
  profile          activation profile of the owner
  pareto           robustness against utility of attacked models
  roc              positives against negatives, over suspects
  timing           seconds of embed and extract
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
    help="File to write; ends in .png, .svg or .pdf.",
)
def command(
    kind: str, output_dir: Path, sweep: str | None, runs: tuple[str, ...], methods: tuple[str, ...], output: Path
) -> None:
    """Draw finished runs in the width of a paper's column, with fonts inside the file.

    Prints where the file is. Nothing is computed again.
    """
    from amb.report.figures import check_ending, draw, save
    from amb.results.collect import collect

    check_ending(output)
    document = collect(output_dir, sweep, runs)
    save(draw(kind, _only(document, methods)), output)
    click.echo(output)


def _only(document: Mapping[str, Any], methods: Sequence[str]) -> Mapping[str, Any]:
    """The cells of these methods, all where none is named. Raises BadParamsError for one without results."""
    from amb.errors import BadParamsError, near_names

    known = list(dict.fromkeys(str(cell["method"]) for cell in document["cells"]))
    wanted = [name if name in known else _canonical(name) for name in methods]
    for name in wanted:
        if name not in known:
            there = f"There are: {', '.join(known)}."
            raise BadParamsError(f"There are no results of method '{name}'.{near_names(name, known)} {there}")
    return {**document, "cells": [cell for cell in document["cells"] if not wanted or cell["method"] in wanted]}


def _canonical(text: str) -> str:
    """A preset or a spec with defaults spelt out, as results name it; the text itself where nothing is called so."""
    from amb.errors import UsageError
    from amb.plugin.manager import manager

    try:
        return manager().registry.method(text).canonical()
    except UsageError:
        return text
