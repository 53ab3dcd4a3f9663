"""`amb data`: what a suite makes of the data sets on disk."""

from __future__ import annotations

from typing import get_args

import click

from amb.api.types import Role
from amb.cli import options

EPILOG = """
\b
Examples:
  amb data files paper-clip:task=pet --data ~/images
  amb data files "folder:model=file/my/model,data=birds" --role trigger --format json
"""


@click.group(name="data", epilog=EPILOG)
def command() -> None:
    """Say what a suite makes of the data sets on disk."""


@command.command(name="files", epilog=EPILOG)
@click.argument("suite", metavar="SUITE")
@options.places
@click.option("--role", "roles", type=click.Choice(get_args(Role)), multiple=True, help="Only this role. Repeatable.")
@click.option("--format", "format_", type=click.Choice(["table", "json"]), default="table", show_default=True)
def files(suite: str, roles: tuple[Role, ...], format_: str) -> None:
    """List which file serves which role of a SUITE: a line each, role and file with a tab between."""
    from amb.errors import BadParamsError, printable
    from amb.plugin.manager import manager

    asked = manager().registry.suite(suite)
    found = {role: asked.files(role) for role in roles or get_args(Role)}
    if None in found.values():
        raise BadParamsError(f"The suite {asked.name} reads no files: it makes its images. Name one on data of yours.")
    rows = [(role, file) for role, listed in found.items() for file in listed or ()]
    if format_ == "json":
        import json

        click.echo(json.dumps([{"role": role, "file": file} for role, file in rows], indent=1))
        return
    for role, file in rows:
        click.echo(f"{role}\t{printable(file)}")
