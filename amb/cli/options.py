"""Options that several commands share: one name, one help."""

from __future__ import annotations

from pathlib import Path

import click

output_dir = click.option(
    "--output-dir",
    type=click.Path(path_type=Path),
    default=Path("amb-results"),
    show_default=True,
    help="Store, runs and MLflow data.",
)
device = click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
format_ = click.option(
    "--format", "format_", default="table", show_default=True, help="table, json, csv, markdown, latex, html."
)
quiet = click.option("-q", "--quiet", is_flag=True, help="No progress on standard error.")
