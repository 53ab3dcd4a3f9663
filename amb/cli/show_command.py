"""`amb show NAME`: a component's page, made from its declaration."""

from __future__ import annotations

import inspect
import textwrap
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from amb.api.component import Component
    from amb.plugin.registry import Catalog

EPILOG = """
\b
Examples:
  amb show activemark
  amb show prune40
  amb show finetune --format json
"""


@click.command(name="show", epilog=EPILOG)
@click.argument("name")
@click.option("--format", "format_", type=click.Choice(["table", "json"]), default="table", show_default=True)
def command(name: str, format_: str) -> None:
    """Show what a component does, its source, parameters with defaults and bounds, and presets."""
    from amb.errors import unknown_name
    from amb.plugin.manager import manager

    registry = manager().registry
    found = [kind for kind in registry.kinds.values() if name in kind.names()]
    if not found:
        known = [each for kind in registry.kinds.values() for each in kind.names()]
        raise unknown_name("component", name, known, "`amb list` shows all")
    pages = [_make_page(kind, name) for kind in found]
    if format_ == "json":
        import json

        click.echo(json.dumps(pages, indent=1))
        return
    for page in pages:
        _print_page(page)


def _make_page(kind: Catalog[Any], name: str) -> dict[str, Any]:
    cls, preset = kind.find(name)
    return {
        "kind": kind.kind,
        "name": cls.name,
        "documentation": inspect.cleandoc(cls.__doc__ or ""),
        "source": cls.source,
        "plugin": str(kind.plugin_of(name)),
        "access": getattr(cls, "access", None),
        "thief": getattr(cls, "thief", None),
        "parameters": _add_preset(cls, preset),
        "preset": name if preset else None,
        "presets": {each: dict(params) for each, params in cls.presets.items()},
    }


def _add_preset(cls: type[Component], preset: Any) -> list[dict[str, str]]:
    from amb.api.component import parameter_rows, value_text

    rows = parameter_rows(cls)
    for row in rows:
        if row["parameter"] in preset:
            row["preset"] = value_text(preset[row["parameter"]])
    return rows


def _print_page(page: dict[str, Any]) -> None:
    from amb.api.component import value_text
    from amb.api.spec import Spec

    heading = (
        f"{page['preset']}, a preset of the {page['kind']} {page['name']}"
        if page["preset"]
        else f"{page['kind']} {page['name']}"
    )
    click.echo(f"{heading}\n\n{page['documentation']}\n")
    if page["source"]:
        click.echo(f"Source: {page['source']}")
    if page["access"]:
        click.echo(f"Access to a suspect: {page['access']}")
    if page["thief"]:
        click.echo(f"The thief: {page['thief']}")
    click.echo(f"From: {page['plugin']}")
    if page["parameters"]:
        click.echo("\nParameters:")
    for row in page["parameters"]:
        facts = [
            row["type"],
            f"default {row['default']}",
            row["range"],
            f"{page['preset']} sets {row['preset']}" if "preset" in row else "",
        ]
        click.echo(f"  {row['parameter']}  ({'; '.join(filter(None, facts))})")
        click.echo(textwrap.fill(row["help"], 96, initial_indent="      ", subsequent_indent="      "))
    if page["presets"]:
        click.echo("\nPresets:")
        for name, params in page["presets"].items():
            spec = Spec(page["name"], {key: value_text(value) for key, value in params.items()})
            click.echo(f"  {name} = {spec}")
