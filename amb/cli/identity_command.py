"""`amb identity`: the key that one signs findings with."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from amb.cli import options

EPILOG = """
\b
Examples:
  amb identity new --seal
  amb identity show > my-firm.pem
"""
NEW_EPILOG = """
\b
Examples:
  amb identity new --seal
  amb identity new --folder keys/firm --passphrase-fd 3 3< passphrase.txt
"""
SHOW_EPILOG = """
\b
Examples:
  amb identity show
  amb identity show --folder keys/firm --format json
"""
folder_option = click.option(
    "--folder",
    type=click.Path(path_type=Path, file_okay=False),
    help="Where it lies; by default amb/identity in the user's folder of settings.",
)


@click.group(name="identity", epilog=EPILOG)
def command() -> None:
    """Make or show an identity: an Ed25519 key that signs what you found."""


@command.command(name="new", epilog=NEW_EPILOG)
@folder_option
@click.option("--seal", "sealed", is_flag=True, help="Ask for a passphrase that seals the private key.")
@options.passphrase_fd
def new_command(folder: Path | None, sealed: bool, passphrase_fd: int | None) -> None:
    """Make an identity: a private key that only you may read, and a public key to give away. Prints the key's id."""
    from amb.ownership.identity import default_folder, new_identity, refuse_taken
    from amb.ownership.sealing import ask_passphrase

    place = folder or default_folder()
    refuse_taken(place)  # before anybody types a passphrase
    with_seal = sealed or passphrase_fd is not None
    made = new_identity(place, ask_passphrase(passphrase_fd, confirm=True) if with_seal else None)
    hint = "sealed" if with_seal else "not sealed: whoever reads it signs as you; --seal asks for a passphrase"
    print(f"{place}: the private key is {hint}.", file=sys.stderr)
    click.echo(made)


@command.command(name="show", epilog=SHOW_EPILOG)
@folder_option
@click.option("--format", "format_", type=click.Choice(["pem", "json"]), default="pem", show_default=True)
def show_command(folder: Path | None, format_: str) -> None:
    """Print the public key, to give to whoever is to verify what you sign; its id goes to standard error."""
    from amb.ownership.identity import default_folder, encode_public, key_id, load_public, require_identity

    place = folder or default_folder()
    require_identity(place)
    key = load_public(place)
    pem = encode_public(key).decode()
    if format_ == "json":
        click.echo(json.dumps({"key_id": key_id(key), "public_key": pem, "folder": str(place)}, indent=1))
        return
    print(f"key id {key_id(key)}, in {place}", file=sys.stderr)
    click.echo(pem, nl=False)
