"""`amb explain WORD`: what a word in a table means."""

from __future__ import annotations

import textwrap

import click

EPILOG = """
\b
Examples:
  amb explain margin
  amb explain "p calib."
  amb explain
"""


@click.command(name="explain", epilog=EPILOG)
@click.argument("words", nargs=-1, metavar="[WORD]")
@click.option("--format", "format_", type=click.Choice(["table", "json"]), default="table", show_default=True)
def command(words: tuple[str, ...], format_: str) -> None:
    """Say what a WORD in a table means, and which page says more; every word where none is given."""
    from amb.report.glossary import TERMS, explain

    found = [explain(" ".join(words))] if words else TERMS
    if format_ == "json":
        import json

        click.echo(json.dumps([term._asdict() for term in found], indent=1, ensure_ascii=False))
        return
    for term in found:
        click.echo(term.word)
        click.echo(textwrap.fill(f"{term.meaning} ({term.page})", 88, initial_indent="  ", subsequent_indent="  "))
