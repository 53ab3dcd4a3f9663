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
methods = click.option(
    "--method",
    "methods",
    multiple=True,
    required=True,
    metavar="SPEC",
    help="Method, name[:key=value,...]. Repeatable.",
)
suite = click.option(
    "--suite", default="tiny", show_default=True, metavar="SPEC", help="Owner, data and innocent models."
)
model = click.option(
    "--model", metavar="REF", help="Protect this model instead of the suite's owner, e.g. file/my/model."
)
seed = click.option("--seed", type=int, default=0, show_default=True, help="Seed of everything random, 0 or more.")
tau = click.option("--tau", type=int, help="Most wrong symbols of a detected trial; by default the method's own.")
