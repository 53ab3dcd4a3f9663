"""`amb judge`: replay somebody's evidence, and say step by step what was verified and what is taken on trust."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from amb.cli import options

if TYPE_CHECKING:
    from amb.ownership.judge import Judgement
    from amb.runtime.compute import Compute

EPILOG = """
\b
Examples:
  amb judge evidence.zip --suspect their-model/
  amb judge evidence.zip --suspect their-model/ --unmarked original/ --negative timm/vit_base_patch16_224.mae \\
    --suspect-date 2026-05-01 --tsa-root tsa.pem --signer owner.pem --keys 1

Exit code 0: the claim stands; 1: it does not, or the mark was not read here, so that nothing is decided.
"""


@click.command(name="judge", epilog=EPILOG)
@click.argument("evidence", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--suspect", metavar="REF", help="The model in doubt: reference or path.")
@click.option(
    "--key", type=click.Path(path_type=Path), metavar="DIR", help="The key, where the evidence does not open it."
)
@click.option("--unmarked", metavar="REF", help="The unmarked model: then the key's parts are made again.")
@click.option(
    "--negative", "negatives", multiple=True, metavar="REF", help="Innocent model of your own choice. Repeatable."
)
@click.option("--suspect-date", type=click.DateTime(["%Y-%m-%d"]), help="When the suspect was first seen.")
@click.option(
    "--tsa-root", type=click.Path(path_type=Path), metavar="FILE", help="Certificate that time stamps lead to."
)
@click.option(
    "--signer",
    "signers",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Public key to check by.",
)
@click.option("--keys", "n_keys", type=click.IntRange(1), help="How many keys the claimant has registered.")
@click.option(
    "--level", type=click.FloatRange(0, 1, min_open=True, max_open=True), help="False positive rate; else the key's."
)
@click.option(
    "--images", type=click.Path(path_type=Path), metavar="FOLDER", help="Images of your own to read the key on."
)
@options.passphrase_fd
@click.option("--format", "format_", type=click.Choice(["text", "json"]), default="text", show_default=True)
@options.compute
@options.offline
def command(
    evidence: Path,
    suspect: str | None,
    key: Path | None,
    unmarked: str | None,
    negatives: tuple[str, ...],
    tsa_root: Path | None,
    signers: tuple[Path, ...],
    passphrase_fd: int | None,
    format_: str,
    compute: Callable[[], Compute],
    **asked: Any,
) -> int:
    """Replay EVIDENCE on this machine, offline, and say what you have verified yourself and what you take on trust."""
    from amb.ownership.evidence import read_evidence
    from amb.python.ownership import judge

    judgement = judge(
        read_evidence(evidence),
        suspect=suspect,
        key=key,
        unmarked=unmarked,
        negatives=negatives,
        signers=signers,
        tsa_root=tsa_root,
        passphrase_fd=passphrase_fd,
        compute=compute(),
        **asked,
    )
    return _say(judgement, format_)


_SIGNS = {"verified": "verified ", "trusted": "on trust ", "refused": "REFUSED  "}


def _say(judgement: Judgement, format_: str) -> int:
    import json

    from amb.errors import printable
    from amb.ownership.judge import to_json

    if format_ == "json":
        click.echo(json.dumps(to_json(judgement), indent=1))
        return 0 if judgement.outcome == "stands" else 1
    for step in judgement.steps:
        click.echo(printable(f"{_SIGNS[step.status]} {step.what}: {step.text}"))
    click.echo(_conclude(judgement))
    return 0 if judgement.outcome == "stands" else 1


def _conclude(judgement: Judgement) -> str:
    """The last line: what came of it, and what of it rests on trust."""
    trust = f" On trust: {'; '.join(judgement.on_trust)}." if judgement.on_trust else " Nothing is taken on trust."
    if judgement.outcome == "stands":
        return f"The claim stands at level {judgement.level:g}.{trust}"
    if judgement.outcome == "refused":
        return "The claim does not stand: " + (
            "see what is REFUSED." if judgement.claim else "the evidence itself claims nothing."
        )
    return f"NOT DECIDED: the mark was not read here. Give --suspect and the key (--key, or evidence that opens it).{trust}"
