"""What an entry is: its address, its record, and whether its files are what the record says."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from amb.api.digests import digest_of

SCHEMA: Final = 1
RECORD: Final = "record.json"
"""An entry is there if its record is; everything else of it is written before."""
_DAMAGE: Final = (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError)
"""What comes of reading a record that is none."""


@dataclass(frozen=True)
class StoreEntry:
    """A finished step."""

    digest: str
    folder: Path
    """Its files on this machine, to be read only."""
    facts: Mapping[str, Any]
    cached: bool
    """True where it was found, False where it was computed just now."""


class Damaged(Exception):  # noqa: N818 (what was found, not what went wrong)
    """An entry is not what its record says; the text says how."""


def find_address(kind: str, inputs: Mapping[str, Any]) -> str:
    """The digest under which the step of these inputs is kept."""
    return digest_of({"schema": SCHEMA, "kind": kind, **inputs})


def write_record(inputs: Mapping[str, Any], facts: Mapping[str, Any], files: Mapping[str, str]) -> bytes:
    """The record of an entry: what it was computed from, what came of it, and the digest of each file."""
    record: dict[str, Any] = {"schema": SCHEMA, "inputs": inputs, "facts": facts, "files": files}
    record["digest"] = digest_of(record)
    return (json.dumps(record, indent=1) + "\n").encode()


def read_record(text: bytes) -> dict[str, Any]:
    """What is said of an entry. Raises Damaged where that is not what was written."""
    try:
        record: dict[str, Any] = json.loads(text)
        said = record.pop("digest")
        if said != digest_of(record):
            raise Damaged(f"{RECORD} was changed")
        if not all(Path(name).name == name and isinstance(digest, str) for name, digest in record["files"].items()):
            raise Damaged(f"{RECORD} names files elsewhere")
        record["facts"]
    except _DAMAGE as error:
        raise Damaged(f"{RECORD} is none: {type(error).__name__}: {error}") from None
    return record


def read_facts(text: bytes) -> Mapping[str, Any] | None:
    """What came of a step, unchecked; None where the record is none."""
    try:
        facts: Mapping[str, Any] = json.loads(text)["facts"]
    except _DAMAGE:
        return None
    return facts


def check_files(folder: Path, record: Mapping[str, Any]) -> None:
    """Raise Damaged where a file of an entry is missing or not what it was."""
    for name, digest in record["files"].items():
        try:
            found = digest_file(folder / name)
        except OSError as error:
            raise Damaged(f"{name}: {error.strerror or error}") from None
        if found != digest:
            raise Damaged(f"{name} was changed")


def digest_files(folder: Path) -> dict[str, str]:
    """SHA-256 of each file in a folder, by its name."""
    return {path.name: digest_file(path) for path in sorted(folder.iterdir())}


def digest_file(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
