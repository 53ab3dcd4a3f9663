"""`amb verify`: read a key on a suspect, or by exchange of files on one that only answers questions."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from amb.cli import options

if TYPE_CHECKING:
    from amb.ownership.commitment import Commitment
    from amb.ownership.key_facts import OpenedKey
    from amb.ownership.verification import Finding
    from amb.runtime.compute import Compute

EPILOG = """
\b
Examples:
  amb verify their-model/ --key protected/key --commitment protected/commitment.json -o evidence.zip
  amb verify timm/vit_base_patch16_224.mae file/their/model --key protected/key
  amb verify their-model/ --key first/key --key second/key
  amb verify ask --key protected/key -o questions/
  amb verify answer questions/ --features answers.csv --key protected/key -o evidence.zip

Exit code 0: claim on every suspect (with several keys: by any of them); 1: no claim; 2: usage; 3: something is missing.
"""
ASK_EPILOG = """
\b
Example:
  amb verify ask --key protected/key -o questions/
"""
ANSWER_EPILOG = """
\b
Example:
  amb verify answer questions/ --features answers.npz --key protected/key -o evidence.zip

answers.npz holds `names` (file names) and `features` (a row for each); a csv has the file name first.
"""


class SuspectFirst(click.Group):
    """A group whose arguments, where they name no subcommand, are those of the subcommand `read`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not args or (args[0] not in self.commands and args[0] not in ctx.help_option_names):
            args = ["read", *args]
        return super().parse_args(ctx, args)


@click.group(cls=SuspectFirst, name="verify", epilog=EPILOG)
def command() -> None:
    """Is that model mine? Read a key on a SUSPECT: a reference, a path, or a service by exchange of files.

    `amb verify SUSPECT...` is short for `amb verify read SUSPECT...`, whose help lists the options.
    """


_key = click.option(
    "--key", type=click.Path(path_type=Path), required=True, metavar="DIR", help="Folder of the key: protected/key."
)
_evidence = (
    click.option(
        "-o", "--output", type=click.Path(path_type=Path), metavar="FILE", help="Write evidence.zip for a third party."
    ),
    click.option(
        "--commitment",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="The commitment to the key, with its receipts.",
    ),
    click.option(
        "--identity", type=click.Path(path_type=Path), metavar="DIR", help="Sign the evidence with this identity."
    ),
    click.option("--open-key", is_flag=True, help="Put the key into the evidence, for the judge alone."),
)


def _writes_evidence(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in reversed(_evidence):
        command = option(command)
    return command


@command.command(name="read", epilog=EPILOG)
@click.argument("suspects", nargs=-1, required=True, metavar="SUSPECT...")
@click.option(
    "--key",
    "keys",
    type=click.Path(path_type=Path),
    required=True,
    multiple=True,
    metavar="DIR",
    help="Folder of the key: protected/key. Repeatable: all readings share the error rate.",
)
@_writes_evidence
@click.option("--unmarked", metavar="REF", help="The unmarked model, where the key does not find it.")
@click.option(
    "--negative",
    "negatives",
    multiple=True,
    metavar="REF",
    help="Innocent model, for methods without an exact null; SOURCE=REF names relatives, which count once. Repeatable.",
)
@click.option(
    "--level", type=click.FloatRange(0, 1, min_open=True, max_open=True), help="False positive rate; else the key's."
)
@click.option(
    "--images", type=click.Path(path_type=Path), metavar="FOLDER", help="Read the key on these images, not on its own."
)
@options.passphrase_fd
@click.option("--format", "format_", type=click.Choice(["text", "json"]), default="text", show_default=True)
@options.compute
@options.offline
def read_command(
    suspects: tuple[str, ...],
    keys: tuple[Path, ...],
    output: Path | None,
    commitment: Path | None,
    identity: Path | None,
    open_key: bool,
    unmarked: str | None,
    negatives: tuple[str, ...],
    level: float | None,
    images: Path | None,
    passphrase_fd: int | None,
    format_: str,
    compute: Callable[[], Compute],
) -> int:
    """Read the key on models whose files are at hand. Several suspects, and several keys, share the error rate (Holm)."""
    from amb.ownership.under_way import Workplace
    from amb.ownership.verification import correct_together, verify
    from amb.plugin.manager import manager
    from amb.python.ownership import find_unmarked, make_negative, make_suspect, read_folder
    from amb.runtime.guard import divert_stdout
    from amb.runtime.progress import make_progress

    if (output or commitment) and len(suspects) * len(keys) > 1:
        raise click.UsageError("Evidence is about one suspect and one key: give one of each with -o and --commitment.")
    if output and images:
        raise click.UsageError("Evidence is read on the key's images; a judge reads his own: `amb judge --images`.")
    opened = {str(key): _open(key, passphrase_fd) for key in keys}
    committed = _read_commitment(commitment, opened[str(keys[0])])
    registry = manager().registry
    with divert_stdout():
        at = Workplace(registry, compute(), make_progress(quiet=False))
        own_images = read_folder(images, registry) if images else None

        def read(key: OpenedKey) -> list[Finding]:
            method = registry.method(key.key.method)
            return verify(
                key,
                method,
                [make_suspect(each, method, at) for each in suspects],
                unmarked=find_unmarked(key, unmarked, at),
                negatives=[make_negative(each, method, at) for each in negatives],
                level=level,
                images=own_images,
                compute=at.compute,
            )

        read_by = {name: read(key) for name, key in opened.items()}
    found = correct_together(read_by) if len(keys) > 1 else read_by[str(keys[0])]
    if output:
        _write(output, found[0], opened[str(keys[0])], committed, commitment, identity, open_key)
    return _say(found, format_)


@command.command(name="ask", epilog=ASK_EPILOG)
@_key
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), required=True, metavar="DIR", help="New folder for the images."
)
@click.option(
    "--decoys", type=click.FloatRange(0, 10), default=0.25, show_default=True, help="Decoys, as a share of the images."
)
@options.passphrase_fd
def ask_command(key: Path, output: Path, decoys: float, passphrase_fd: int | None) -> None:
    """Write the images that the key asks about, shuffled among decoys, for a service or the other side to answer."""
    from amb.errors import UsageError
    from amb.ownership.questions import write_questions
    from amb.plugin.manager import manager

    if output.exists():
        raise UsageError(f"{output} exists already. Give a new folder: -o.")
    opened = _open(key, passphrase_fd)
    n = write_questions(opened, manager().registry.method(opened.key.method), output, decoys)
    print(
        f"{n} images in {output}: have each answered with its embedding, then run `amb verify answer`.", file=sys.stderr
    )


@command.command(name="answer", epilog=ANSWER_EPILOG)
@click.argument("questions", type=click.Path(path_type=Path, file_okay=False))
@click.option(
    "--features", type=click.Path(path_type=Path), required=True, metavar="FILE", help="The answers, npz or csv."
)
@_key
@_writes_evidence
@click.option(
    "--level", type=click.FloatRange(0, 1, min_open=True, max_open=True), help="False positive rate; else the key's."
)
@options.passphrase_fd
@click.option("--format", "format_", type=click.Choice(["text", "json"]), default="text", show_default=True)
def answer_command(
    questions: Path,
    features: Path,
    key: Path,
    output: Path | None,
    commitment: Path | None,
    identity: Path | None,
    open_key: bool,
    level: float | None,
    passphrase_fd: int | None,
    format_: str,
) -> int:
    """Read the key on answers to the images of `amb verify ask`."""
    from amb.ownership.answers import AnsweredView
    from amb.ownership.questions import read_answers
    from amb.ownership.verification import Suspect, verify
    from amb.plugin.manager import manager

    opened = _open(key, passphrase_fd)
    committed = _read_commitment(commitment, opened)
    method = manager().registry.method(opened.key.method)
    view = AnsweredView(read_answers(questions, features), method.access)
    found = verify(opened, method, [Suspect(str(features), None, view)], level=level)
    if output:
        _write(output, found[0], opened, committed, commitment, identity, open_key)
    return _say(found, format_)


def _open(key: Path, passphrase_fd: int | None) -> OpenedKey:
    from amb.ownership.key_facts import open_key
    from amb.ownership.sealing import ask_passphrase

    return open_key(key, lambda: ask_passphrase(passphrase_fd, confirm=False))


def _read_commitment(path: Path | None, opened: OpenedKey) -> Commitment | None:
    """The commitment, before anything is computed. Raises UsageError where it is to another key."""
    from amb.errors import UsageError
    from amb.ownership.commitment import read_commitment

    if path is None:
        return None
    found = read_commitment(path)
    if not found.check_key(opened.salt, opened.data):
        raise UsageError(f"This key is not the one that {path} commits to. Give the one written with it: --commitment.")
    return found


def _write(
    output: Path,
    finding: Finding,
    opened: OpenedKey,
    committed: Commitment | None,
    commitment: Path | None,
    identity: Path | None,
    open_key: bool,
) -> None:
    from amb.ownership.evidence import write_evidence
    from amb.ownership.identity import load_identity
    from amb.ownership.receipts import read_receipt_files
    from amb.ownership.sealing import ask_passphrase

    joined = getattr(finding.suspect.view, "joined", lambda: None)
    digest = write_evidence(
        output,
        finding,
        opened,
        answers=joined(),
        commitment=committed,
        receipts=read_receipt_files(commitment) if commitment else {},
        signer=load_identity(identity, lambda: ask_passphrase(None, confirm=False)) if identity else None,
        with_key=open_key,
    )
    secret = "; THE KEY IS IN IT: for the judge alone" if open_key else ""
    print(f"{output}: evidence, statement sha256:{digest}{secret}", file=sys.stderr)


def _say(found: list[Finding], format_: str) -> int:
    import json

    from amb.ownership.verification import LIMITS, describe_finding, say_finding

    if format_ == "json":
        said = [describe_finding(each) | ({"key": each.key} if each.key else {}) for each in found]
        click.echo(json.dumps({"schema": 1, "findings": said}, indent=1))
    else:
        for each in found:
            click.echo(say_finding(each))
        for kind in dict.fromkeys(each.claims for each in found):
            click.echo(f"What it does not say: {LIMITS[kind]}")
    claimed = {each.suspect.name for each in found if each.claim}
    return 0 if all(each.suspect.name in claimed for each in found) else 1
