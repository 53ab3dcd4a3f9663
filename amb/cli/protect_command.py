"""`amb protect`: a marked copy of a model, the key to it, a commitment and a report."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from amb.cli import options

if TYPE_CHECKING:
    from amb.api.interfaces import Method
    from amb.ownership.under_way import Request, Workplace
    from amb.runtime.compute import Compute

EPILOG = """
\b
Examples:
  amb protect tiny/owner -o protected
  amb protect my-dinov2/ --data photos/ -o protected --seal
  amb protect model.safetensors --method spread-weights -o protected --self-test none
  amb protect my-dinov2/ -o protected --dry-run

Ship protected/model, keep protected/key, publish the line that is printed. Stopped, the same command goes on.
"""

_NO_DATA = "no --data: the embedded images serve. A mark is best made on images like those that the model will see."


@click.command(name="protect", epilog=EPILOG)
@click.argument("model")
@click.option(
    "--method", default="spread-features", show_default=True, metavar="SPEC", help="Method, name[:key=value,...]."
)
@options.params
@click.option("--data", type=click.Path(path_type=Path), metavar="FOLDER", help="Images like those the model will see.")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), required=True, metavar="DIR", help="New folder to write."
)
@options.level
@click.option(
    "--self-test",
    type=click.Choice(["none", "quick", "full"]),
    default="quick",
    show_default=True,
    help="Utility, and attacks to try on the marked copy and on the unmarked model.",
)
@click.option("--seal", "sealed", is_flag=True, help="Ask for a passphrase that seals the key.")
@options.passphrase_fd
@click.option("--dry-run", is_flag=True, help="Say what it would take in time, memory and disk; write nothing.")
@options.compute
@options.offline
@options.quiet
def command(
    model: str,
    method: str,
    params: tuple[str, ...],
    data: Path | None,
    output: Path,
    level: float,
    self_test: str,
    sealed: bool,
    passphrase_fd: int | None,
    dry_run: bool,
    compute: Callable[[], Compute],
    quiet: bool,
) -> None:
    """Write a protected copy of MODEL, a reference or a path, in the form in which it came.

    Beside it: the key, drawn from the operating system's randomness; a commitment that can be published; a report of what the
    mark costs and survives. The line on standard output is the commitment's digest, to be published or dated.
    """
    from amb.api.spec import parse_assignments
    from amb.ownership.commitment import read_commitment
    from amb.ownership.protect import COMMITMENT, protect, refuse_taken
    from amb.ownership.sealing import ask_passphrase
    from amb.python.ownership import plan_protection
    from amb.runtime.guard import divert_stdout

    with divert_stdout():
        asked = (model, method, data, parse_assignments(params), level, self_test, compute())
        request, at = plan_protection(*asked, quiet=quiet)
        at.progress.say(_say_basis(request.method))
        if data is None:
            at.progress.say(_NO_DATA)
        cost = _measure_cost(request, at) if dry_run else None
    if cost is not None:
        click.echo(cost)
        return
    refuse_taken(output)  # before anybody types a passphrase
    with_seal = sealed or passphrase_fd is not None
    passphrase = ask_passphrase(passphrase_fd, confirm=True) if with_seal else None
    with divert_stdout():
        protect(request, output, at, passphrase)
    print(f"{output}: ship model/, keep key/, read report.html.", file=sys.stderr)
    click.echo(f"sha256:{read_commitment(output / COMMITMENT).digest}")


def _say_basis(method: Method) -> str:
    """What a claim with such a key rests on, in one sentence."""
    if method.null == "exact":
        return f"{method.name}: for any model made without the key every symbol is a fair draw, so a claim's p-value is exact."
    return (
        f"{method.name}: its symbols are no fair draws on innocent models, so a claim rests on innocent models that the "
        "verifier reads beside the suspect, and on how many sources they have."
    )


def _measure_cost(request: Request, at: Workplace) -> str:
    """Seconds, memory and disk, from one measured step of the network."""
    from amb.execution.cost import measure_step, seconds_of
    from amb.models.references import load_skeleton

    at.compute.apply()
    step = measure_step(load_skeleton(request.model, at.registry).place(at.compute), at.compute.device)
    work, weights = request.method.work(step.facts), 4 * step.n_parameters / 2**30
    seconds = "not known beforehand" if work is None else f"about {seconds_of(work, step):.0f} s on {at.compute.device}"
    memory = (step.fixed_mib + step.batch * step.image_mib) / 1024
    return (
        f"embedding   {seconds}; the self-test comes on top\n"
        f"memory      about {memory:.1f} GiB beside the images' tokens\n"
        f"disk        {3 * weights:.1f} GiB while it works, {weights:.1f} GiB and the key afterwards"
    )
