"""Options that several commands share: one name, one help."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from amb.report.format_names import FORMATS
from amb.runtime.compute import PRECISIONS, Compute, pick_compute
from amb.runtime.paths import DATA, DOWNLOAD, STORE, go_offline

if TYPE_CHECKING:
    from amb.api.plan import Plan

output_dir = click.option(
    "--output-dir",
    type=click.Path(path_type=Path),
    default=Path("amb-results"),
    show_default=True,
    help="Store, runs and MLflow data.",
)
store = click.option(
    "--store",
    metavar="URL",
    envvar=STORE,
    help=f"Folder or URL (s3://BUCKET/FOLDER) of finished steps, or {STORE}; by default in the output folder.",
)

sweep = click.option("--sweep", metavar="NAME", help="Only the runs of this sweep.")
runs = click.option("--run", "runs", multiple=True, metavar="ID", help="Only this run. Repeatable.")
output = click.option("-o", "--output", type=click.Path(path_type=Path, dir_okay=False), help="Write to this file.")


def write(text: str, path: Path | None, what: str) -> None:
    """Print, or write to the file of `output`. Raises BadParamsError where that cannot be written."""
    from amb.errors import BadParamsError

    if path is None:
        click.echo(text)
        return
    try:
        path.write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise BadParamsError(f"The {what} cannot go to {path}: {error.strerror}. Give another file: -o.") from None


_COMPUTE = (
    click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:N or mps."),
    click.option(
        "--precision",
        type=click.Choice(PRECISIONS),
        default="fp32",
        show_default=True,
        help="Of the models' arithmetic; weights stay fp32.",
    ),
    click.option("--compile", "compiled", is_flag=True, help="Pass transformer blocks through torch.compile."),
    click.option("--tf32", is_flag=True, help="Round a GPU's fp32 products to TF32."),
    click.option("--deterministic", is_flag=True, help="Take torch's deterministic kernels where it has them."),
    click.option("--max-batch", type=click.IntRange(1), help="Most images in one pass; by default as many as fit."),
    click.option(
        "--load-threads", type=click.IntRange(0, 256), help="Threads that read images ahead; by default 8 beside a GPU."
    ),
)


def compute(command: Callable[..., Any]) -> Callable[..., Any]:
    """How to compute, as one argument: a function that gives it, for finding out what devices there are takes a second."""

    @wraps(command)
    def with_compute(*args: Any, device: str, load_threads: int | None, max_batch: int | None, **options: Any) -> Any:
        chosen = {name: options.pop(name) for name in ("precision", "compiled", "tf32", "deterministic")}

        def make() -> Compute:
            return pick_compute(device, load_threads, max_batch=max_batch, **chosen)

        return command(*args, compute=make, **options)

    for option in reversed(_COMPUTE):
        with_compute = option(with_compute)
    return with_compute


def _set_data(_: click.Context, __: click.Parameter, root: Path | None) -> None:
    if root is not None:
        os.environ[DATA] = str(root)


def _set_download(_: click.Context, __: click.Parameter, asked: bool) -> None:
    if asked:
        os.environ[DOWNLOAD] = "1"


def _set_offline(_: click.Context, __: click.Parameter, asked: bool) -> None:
    if asked:
        go_offline()


offline = click.option("--offline", is_flag=True, expose_value=False, callback=_set_offline, help="Fetch nothing.")


def places(command: Callable[..., Any]) -> Callable[..., Any]:
    """Where data and weights come from. The values travel as variables, see `amb.runtime.paths`."""
    for option in (
        offline,
        click.option(
            "--download",
            is_flag=True,
            expose_value=False,
            callback=_set_download,
            help="Fetch a data set that is not there.",
        ),
        click.option(
            "--data",
            type=click.Path(path_type=Path),
            metavar="ROOT",
            expose_value=False,
            callback=_set_data,
            help="Folder of data sets (or AMB_DATA).",
        ),
    ):
        command = option(command)
    return command


def format_(command: Callable[..., Any]) -> Callable[..., Any]:
    """How to print, as one argument; `--wide` is short for `--format wide`."""
    wide = click.option("--wide", "format_", flag_value="wide", help="Every column, however narrow the terminal.")
    named = click.option(
        "--format",
        "format_",
        default="table",
        show_default=True,
        help=f"{', '.join(FORMATS)}, or one that a plugin brings.",
    )
    return named(wide(command))


quiet = click.option("-q", "--quiet", is_flag=True, help="No progress on standard error.")
methods = click.option(
    "--method",
    "methods",
    multiple=True,
    required=True,
    metavar="SPEC",
    help="Method, name[:key=value,...]. Repeatable.",
)
attacks = click.option(
    "--attack",
    "attacks",
    multiple=True,
    metavar="SPEC",
    help="Attack or chain, name[:key=value,...][+next]. Repeatable.",
)
params = click.option(
    "--set", "params", multiple=True, metavar="KEY=VALUE", help="Parameter of the methods. Repeatable."
)
suite = click.option(
    "--suite", default="tiny", show_default=True, metavar="SPEC", help="Owner, data and innocent models."
)
model = click.option(
    "--model", metavar="REF", help="Protect this model instead of the suite's owner, e.g. file/my/model."
)
seed = click.option("--seed", type=int, default=0, show_default=True, help="Seed of everything random, 0 or more.")
alpha = click.option("--alpha", type=float, default=0.05, show_default=True, help="Level of the bound of eq. 13.")
level = click.option(
    "--level",
    type=float,
    default=1e-6,
    show_default=True,
    help="False positive rate of claims where the null is exact.",
)
tau = click.option("--tau", type=int, help="Most wrong symbols of a detected trial; by default the method's own.")


passphrase_fd = click.option(
    "--passphrase-fd",
    type=click.IntRange(0, 1 << 20),
    metavar="N",
    help="Read the passphrase from this file descriptor instead of asking for it.",
)


def planned(negatives: int = 0) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """What to run, as one argument: the plan, looked up and checked. `negatives` is the default of that option."""
    more = click.option(
        "--negatives",
        type=int,
        default=negatives,
        show_default=True,
        help="Further negatives, made of the innocent models.",
    )

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(command)
        def with_plan(*args: Any, **options: Any) -> Any:
            asked = {name: options.pop(name) for name in _ASKED}
            return command(*args, plan=_make_plan(**asked), **options)

        for option in reversed((methods, attacks, suite, model, seed, params, tau, alpha, level, more)):
            with_plan = option(with_plan)
        return with_plan

    return decorate


_ASKED = ("methods", "attacks", "suite", "model", "seed", "params", "tau", "alpha", "level", "negatives")


def _make_plan(params: tuple[str, ...], **asked: Any) -> Plan:
    from amb.api.spec import parse_assignments
    from amb.python.runs import plan_run

    return plan_run(params=parse_assignments(params), **asked)
