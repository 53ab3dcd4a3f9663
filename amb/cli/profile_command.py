"""`amb profile REF`: a model's activation profile and its expressive block."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from amb.cli import options

if TYPE_CHECKING:
    from amb.runtime.compute import Compute

FIGURES = (".png", ".svg", ".pdf")

EPILOG = """
\b
Examples:
  amb profile tiny/owner
  amb profile file/my/model --figure profile.pdf --format json
"""


@click.command(name="profile", epilog=EPILOG)
@click.argument("ref")
@click.option("--suite", default="tiny", show_default=True, metavar="SPEC", help="Whose owner images to take.")
@click.option("--images", type=click.IntRange(1), default=100, show_default=True, help="How many; the paper takes 100.")
@click.option(
    "--figure",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Where to save the figure (png, svg, pdf).  [default: profile-<model>.png]",
)
@options.compute
@options.places
@click.option("--format", "format_", type=click.Choice(["table", "json"]), default="table", show_default=True)
def command(
    ref: str, suite: str, images: int, figure: Path | None, compute: Callable[[], Compute], format_: str
) -> None:
    """Print the mean top-5 |activation| of each block, massive activations, and the block to embed at.

    The expressive block is the first with massive activations (Sun et al. 2024: above 100 and 1000 times the
    median), else the one of the largest jump if it is clear; where there is none, the output says so.
    """
    from amb.errors import BadParamsError
    from amb.evaluation.activations import activation_profile, choose_block, draw_profile
    from amb.models.references import load_model, require_models
    from amb.plugin.manager import manager
    from amb.runtime.writable import check_writable

    registry = manager().registry
    split = registry.suite(suite).split("owner")
    registry.loader(ref)
    path = figure or Path(f"profile-{ref.replace('/', '-')}.png")
    if path.suffix not in FIGURES:
        raise BadParamsError(f"A figure is {', '.join(FIGURES)}, not '{path.suffix}' ({path}).")
    check_writable(path.parent)
    require_models([ref], registry)
    model = load_model(ref, registry).place(compute())
    if model.n_blocks < 2:
        raise BadParamsError(f"{ref} has no transformer blocks, so it has no activation profile. Give a transformer.")
    profile = activation_profile(model, split.batch(range(min(images, len(split)))).images)
    block, why = choose_block(profile)
    path.parent.mkdir(parents=True, exist_ok=True)
    draw_profile(profile, ref, path, block)
    if format_ == "json":
        import json

        click.echo(
            json.dumps({"schema": 1, "model": ref, **profile.to_json(), "block": block, "block_choice": why}, indent=1)
        )
        return
    click.echo(f"{ref}: activation profile over {profile.n_images} images\n")
    click.echo("block   top-5 mean    median    jump   images with massive activations")
    for index, (top, median, jump, massive) in enumerate(
        zip(profile.top, profile.median, profile.jumps, profile.massive_share, strict=True)
    ):
        click.echo(f"{index:>5} {top:>12.3f} {median:>9.3f} {jump:>6.2f}x  {massive:>6.0%}")
    features = ", ".join(map(str, profile.massive_features)) or "none"
    click.echo(f"\nFeatures with massive activations: {features}")
    click.echo(f"Expressive block: {why}")
    click.echo(f"Figure: {path}")
