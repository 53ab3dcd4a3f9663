"""`amb commit`: a commitment shown, checked, stamped, and receipts attached to it."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from amb.cli import options

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

    from amb.ownership.commitment import Commitment, FolderCheck
    from amb.ownership.receipts import Receipt

EPILOG = """
\b
Examples:
  amb commit show protected/commitment.json
  amb commit stamp protected/commitment.json --tsa http://timestamp.identrust.com
  amb commit check protected/commitment.json --key protected/key --model protected/model
"""
SHOW_EPILOG = """
\b
Examples:
  amb commit show protected/commitment.json
  amb commit show protected/commitment.json | head -1    # the line to publish
"""
CHECK_EPILOG = """
\b
Examples:
  amb commit check protected/commitment.json --key protected/key
  amb commit check protected/commitment.json --model protected/model --tsa-root root.pem

Exit codes: 0 all that was checked is as committed, 1 it is not.
"""
STAMP_EPILOG = """
\b
Examples:
  amb commit stamp protected/commitment.json --tsa http://timestamp.identrust.com
  amb commit stamp protected/commitment.json --tsa http://timestamp.identrust.com --tsa-root root.pem

The authority sees the digest alone. `pip install 'activemark-bench[dispute]'` brings what this needs.
"""
ATTACH_EPILOG = """
\b
Examples:
  amb commit attach protected/commitment.json commitment.json.ots
  amb commit attach protected/commitment.json letter.pdf --date 2026-11-27 --note "Notary's register 1234"
"""
_UNVERIFIED = {
    "rfc3161": "it is on this commitment, and its signature was not verified: give --tsa-root",
    "attached": "what it shows, its issuer has to say",
}
document = click.argument("commitment", type=click.Path(path_type=Path, dir_okay=False))
tsa_root = click.option(
    "--tsa-root",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Certificates of the stamp's authority, its root among them: PEM, or DER of one.",
)


@click.group(name="commit", epilog=EPILOG)
def command() -> None:
    """Show, check and date a commitment: what an owner fixes before a dispute, without showing the key."""


@command.command(name="show", epilog=SHOW_EPILOG)
@document
@click.option("--format", "format_", type=click.Choice(["table", "json"]), default="table", show_default=True)
def show_command(commitment: Path, format_: str) -> None:
    """Print a COMMITMENT: first the one line to publish, then what it fixes and its receipts."""
    from amb.ownership.commitment import describe, read_commitment
    from amb.ownership.receipts import read_receipts

    found, receipts = read_commitment(commitment), read_receipts(commitment)
    if format_ == "json":
        body = {"digest": found.digest, "commitment": found.model_dump(mode="json")}
        click.echo(json.dumps({**body, "receipts": [each.model_dump(mode="json") for each in receipts]}, indent=1))
        return
    click.echo(f"sha256:{found.digest}\n")
    for word, text in describe(found):
        click.echo(f"{word:<14} {text}")
    for each in receipts:
        note = f": {each.note}" if each.note else ""
        click.echo(f"{'receipt':<14} {each.file}, {f'dated {each.date}' if each.date else 'undated'}{note}")


@command.command(name="check", epilog=CHECK_EPILOG)
@document
@click.option(
    "--key", type=click.Path(path_type=Path, file_okay=False), metavar="DIR", help="Folder of the key and its salt."
)
@click.option(
    "--model", type=click.Path(path_type=Path, file_okay=False), metavar="DIR", help="Folder of the marked model."
)
@tsa_root
@options.passphrase_fd
def check_command(
    commitment: Path, key: Path | None, model: Path | None, tsa_root: Path | None, passphrase_fd: int | None
) -> int:
    """Compare a COMMITMENT with a key, a model's files, and its receipts."""
    from amb.ownership.commitment import read_commitment
    from amb.ownership.timestamps import read_certificates

    found = read_commitment(commitment)
    results = []
    if key is not None:
        results.append(_check_key(found, key, passphrase_fd))
    if model is not None:
        results.extend(_list_files(found.check_files(model), model))
    results.extend(_check_receipts(commitment, read_certificates(tsa_root) if tsa_root else []))
    if not results:
        raise click.UsageError("There is nothing to check it against: give --key DIR or --model DIR.")
    for passed, text in results:
        click.echo(f"{'ok' if passed else 'FAILED':<7} {text}")
    return 0 if all(passed for passed, _ in results) else 1


@command.command(name="stamp", epilog=STAMP_EPILOG)
@document
@click.option("--tsa", "url", required=True, metavar="URL", help="Address of an authority of RFC 3161.")
@tsa_root
@click.option("--timeout", type=click.FloatRange(1, 600), default=20, show_default=True, help="Seconds to wait.")
def stamp_command(commitment: Path, url: str, tsa_root: Path | None, timeout: float) -> None:
    """Have a time-stamping authority date a COMMITMENT, and keep its stamp beside it."""
    from amb.ownership.receipts import receipts_folder, stamp
    from amb.ownership.timestamps import read_certificates

    receipt = stamp(commitment, url, read_certificates(tsa_root) if tsa_root else [], timeout)
    said = "its signature was verified" if tsa_root else "its signature was not verified: --tsa-root FILE does it"
    print(f"{receipts_folder(commitment) / receipt.file}: stamped, {said}.", file=sys.stderr)
    click.echo(receipt.date)


@command.command(name="attach", epilog=ATTACH_EPILOG)
@document
@click.argument("receipt", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--date", metavar="DATE", help="When it was issued, as it says: 2026-11-27, or a time with its zone.")
@click.option("--note", default="", metavar="TEXT", help="What it is, and who can confirm it.")
def attach_command(commitment: Path, receipt: Path, date: str | None, note: str) -> None:
    """Keep a dated RECEIPT beside a COMMITMENT: an OpenTimestamps proof, a registry's letter. It is not verified."""
    from amb.ownership.receipts import attach, receipts_folder

    kept = attach(commitment, receipt, date, note)
    print(f"{receipts_folder(commitment) / kept.file}: attached.", file=sys.stderr)
    click.echo(f"sha256:{kept.sha256}")


def _check_key(found: Commitment, folder: Path, passphrase_fd: int | None) -> tuple[bool, str]:
    from amb.ownership.key_folder import read_key_folder
    from amb.ownership.sealing import ask_passphrase

    salt, key = read_key_folder(folder, lambda: ask_passphrase(passphrase_fd, confirm=False))
    same = found.check_key(salt, key)
    return same, f"key: {folder} {'is the key that is committed to' if same else 'is another key, or another salt'}"


def _list_files(check: FolderCheck, folder: Path) -> Iterator[tuple[bool, str]]:
    yield from ((False, f"model: {name} was changed") for name in check.changed)
    yield from ((False, f"model: {name} is missing") for name in check.missing)
    n = len(check.equal)
    more = f"; {len(check.extra):,} more that are not committed to" if check.extra else ""
    yield check.passed, f"model: {n:,} file{'' if n == 1 else 's'} in {folder} as committed{more}"


def _check_receipts(commitment: Path, certificates: list[Certificate]) -> Iterator[tuple[bool, str]]:
    from amb.ownership.receipts import read_receipts

    for receipt in read_receipts(commitment):
        yield _check_receipt(commitment, receipt, certificates)


def _check_receipt(commitment: Path, receipt: Receipt, certificates: list[Certificate]) -> tuple[bool, str]:
    from amb.errors import AmbError, MissingDependencyError
    from amb.ownership.receipts import check_receipt

    try:
        time = check_receipt(commitment, receipt, certificates)
    except MissingDependencyError:
        raise
    except AmbError as error:
        return False, f"receipt: {receipt.file}: {error}"
    if time:
        return True, f"receipt: {receipt.file}: stamped at {time:%Y-%m-%dT%H:%M:%SZ}, signature verified"
    return True, f"receipt: {receipt.file}: unchanged; {_UNVERIFIED[receipt.kind]}"
