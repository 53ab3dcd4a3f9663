"""`amb plugins`: who provides what."""

from __future__ import annotations

import click

EPILOG = """
\b
Examples:
  amb plugins
  AMB_DISABLE_PLUGINS=mlflow amb run --method activemark --attack prune40
"""


@click.command(name="plugins", epilog=EPILOG)
@click.option("--format", "format_", type=click.Choice(["table", "json"]), default="table", show_default=True)
def command(format_: str) -> None:
    """List the installed plugins, their distributions and what they register."""
    from amb.plugin.manager import manager

    plugins = manager()
    registry = plugins.registry
    rows = []
    for plugin in plugins.plugins:
        names = [name for kind in registry.kinds.values() for name in kind.names() if kind.plugin_of(name) == plugin]
        rows.append({**plugin.__dict__, "provides": names})
    if format_ == "json":
        import json

        click.echo(json.dumps(rows, indent=1))
        return
    for row in rows:
        state = "  (disabled by AMB_DISABLE_PLUGINS)" if row["disabled"] else ""
        click.echo(f"{row['name']:<12} {row['module']:<16} {row['distribution']} {row['version']}{state}")
        if row["provides"]:
            click.echo(f"    {', '.join(row['provides'])}")
