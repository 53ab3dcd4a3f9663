"""`amb list`: the names that the other commands take."""

from __future__ import annotations

from typing import Any

import click

from amb.api.types import LISTINGS

EPILOG = """
\b
Examples:
  amb list
  amb list attacks
  amb list models --format json
"""


@click.command(name="list", epilog=EPILOG)
@click.argument("kind", type=click.Choice(LISTINGS), required=False)
@click.option("--format", "format_", type=click.Choice(["table", "json"]), default="table", show_default=True)
def command(kind: str | None, format_: str) -> None:
    """List what can be run, presets included: methods, attacks, suites, models, executors."""
    from amb.plugin.manager import manager

    registry = manager().registry
    rows = [row for name in registry.kinds if kind in (None, name) for row in _list_rows(registry, name)]
    if format_ == "json":
        import json

        click.echo(json.dumps(rows, indent=1))
        return
    width = max(len(row["name"]) for row in rows)
    for name in dict.fromkeys(row["kind"] for row in rows):
        if kind is None:
            click.echo(f"{name}:")
        for row in rows:
            if row["kind"] == name:
                click.echo(f"{'  ' if kind is None else ''}{row['name']:<{width}}  {row['summary']}")


def _list_rows(registry: Any, listing: str) -> list[dict[str, str]]:
    from amb.api.component import value_text
    from amb.api.spec import Spec

    kind = registry.kinds[listing]
    rows = []
    for name in kind.names():
        cls, preset = kind.find(name)
        summary = (
            str(Spec(cls.name, {key: value_text(value) for key, value in preset.items()}))
            if preset
            else _find_first_line(cls)
        )
        if listing == "models":
            rows += [
                {"kind": listing, "name": f"{name}/{item}", "summary": summary} for item in cls().names() or ["..."]
            ]
        else:
            rows.append({"kind": listing, "name": name, "summary": summary})
    return rows


def _find_first_line(cls: type) -> str:
    return (cls.__doc__ or "").strip().partition("\n")[0]
