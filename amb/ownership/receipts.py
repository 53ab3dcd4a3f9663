"""Receipts: what shows that a commitment was there at a time, kept in a folder beside it.

Beside `commitment.json` lies `commitment.receipts/` with the receipts' files and `receipts.json`, which lists them. A stamp of RFC
3161 can be verified here; what any other file shows, such as a registry's letter, its issuer has to say.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, StringConstraints, ValidationError

from amb.errors import AmbError, BadParamsError, UsageError, printable, shortened
from amb.ownership.canonical import hash_bytes
from amb.ownership.commitment import read_commitment
from amb.ownership.documents import MOST_BYTES, Digest, FileName, Note, StrictModel, explain, parse_document
from amb.ownership.files import list_files, make_folder, read_bytes, replace_file
from amb.ownership.timestamps import SECONDS, read_stamp, request_stamp, verify_stamp

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

INDEX: Final = "receipts.json"
MOST_RECEIPT: Final = 64 << 20
"""Bytes of one receipt."""
_OPEN_TIMESTAMPS: Final = "An OpenTimestamps proof; `ots verify` checks it."


def _require_date(text: str) -> str:
    """A day, or a time with its zone."""
    moment = datetime.fromisoformat(text)
    if len(text) > len("2026-11-27") and moment.tzinfo is None:
        raise ValueError("should say its time zone, as 2026-11-27T08:00:00Z does")
    return text


def _require_single(name: str) -> str:
    if "/" in name or name.startswith(".") or name == INDEX or len(name.encode(errors="replace")) > 200:
        raise ValueError("should be a plain name of at most 200 bytes")
    return name


class Receipt(StrictModel):
    """One file that shows something about a commitment's date."""

    file: Annotated[FileName, AfterValidator(_require_single)]
    sha256: Digest
    kind: Literal["rfc3161", "attached"]
    date: Annotated[str, StringConstraints(max_length=40), AfterValidator(_require_date)] | None = None
    """As a stamp states it, or as the owner said: ISO 8601."""
    note: Note = ""


class _Index(StrictModel):
    format: Literal["amb-receipts/1"] = "amb-receipts/1"
    commitment: Digest
    receipts: Annotated[tuple[Receipt, ...], Field(max_length=1_000)] = ()


def receipts_folder(commitment: Path) -> Path:
    """Where the receipts of a commitment lie: `commitment.receipts` beside `commitment.json`."""
    return commitment.with_suffix(".receipts")


def read_receipts(commitment: Path) -> tuple[Receipt, ...]:
    """The receipts of a commitment, oldest entry first. Raises AmbError where the list is another commitment's."""
    return _read_index(commitment).receipts


def read_receipt(commitment: Path, receipt: Receipt) -> bytes:
    """A receipt's file, as it was attached. Raises AmbError where it is missing or was changed."""
    data = read_bytes(receipts_folder(commitment) / receipt.file, MOST_RECEIPT, "The receipt")
    if hash_bytes(data) != receipt.sha256:
        raise AmbError(f"The receipt {receipt.file} was changed since it was attached: its SHA-256 is another.")
    return data


def read_receipt_files(commitment: Path) -> dict[str, bytes]:
    """The files of a commitment's receipts and their list, by name, for showing them to others. Raises AmbError."""
    folder = receipts_folder(commitment)
    if not folder.is_dir():
        return {}
    return {name: read_bytes(folder / name, MOST_RECEIPT, "The receipt") for name in list_files(folder)}


def attach(commitment: Path, file: Path, date: str | None = None, note: str = "") -> Receipt:
    """Keep any dated file beside a commitment; what it shows is for its issuer to say. Raises AmbError."""
    data = read_bytes(file, MOST_RECEIPT, "The receipt")
    if file.suffix == ".ots" and not note:
        note = _OPEN_TIMESTAMPS
    return _add(commitment, _make_receipt(file.name, data, "attached", date, note), data)


def stamp(commitment: Path, url: str, certificates: Sequence[Certificate] = (), seconds: float = SECONDS) -> Receipt:
    """Have an authority of RFC 3161 date a commitment, and keep its stamp; verified where certificates are given.

    Raises AmbError. The authority sees the digest alone.
    """
    document = read_commitment(commitment)
    _read_index(commitment)  # a list that cannot be read is found before anything is sent
    answer = request_stamp(document.encode(), url, seconds)
    digest = document.digest
    when = verify_stamp(answer, digest, certificates) if certificates else read_stamp(answer, digest)
    host = re.sub(r"[^a-z0-9.-]", "-", (urlsplit(url).hostname or "tsa").lower()).strip(".-") or "tsa"
    name = f"{host[:100]}-{when:%Y%m%dT%H%M%SZ}.tsr"
    note = f"Time stamp of RFC 3161 from {host[:100]}."
    return _add(commitment, _make_receipt(name, answer, "rfc3161", f"{when:%Y-%m-%dT%H:%M:%SZ}", note), answer)


def check_receipt(commitment: Path, receipt: Receipt, certificates: Sequence[Certificate] = ()) -> datetime | None:
    """The verified time of a stamp; None where nothing but its own bytes vouches for a receipt. Raises AmbError.

    A file's SHA-256, and that a stamp is on this commitment, are checked in any case.
    """
    data = read_receipt(commitment, receipt)
    if receipt.kind != "rfc3161":
        return None
    digest = read_commitment(commitment).digest
    if certificates:
        return verify_stamp(data, digest, certificates)
    read_stamp(data, digest)
    return None


def _make_receipt(name: str, data: bytes, kind: Literal["rfc3161", "attached"], date: str | None, note: str) -> Receipt:
    try:
        return Receipt(file=name, sha256=hash_bytes(data), kind=kind, date=date, note=note)
    except ValidationError as error:
        raise UsageError(f"The receipt '{printable(shortened(name))}' is refused: {explain(error)}.") from None


def _add(commitment: Path, receipt: Receipt, data: bytes) -> Receipt:
    """Write the file, then the list that names it: a list never names a file that is not there."""
    index = _read_index(commitment)
    if receipt.file in {each.file for each in index.receipts}:
        raise UsageError(f"A receipt is called {receipt.file} already. Rename the new one.")
    folder = receipts_folder(commitment)
    make_folder(folder)
    replace_file(folder / receipt.file, data)
    added = index.model_copy(update={"receipts": (*index.receipts, receipt)})
    replace_file(folder / INDEX, added.model_dump_json(indent=1).encode())
    return receipt


def _read_index(commitment: Path) -> _Index:
    digest = read_commitment(commitment).digest
    path = receipts_folder(commitment) / INDEX
    if not path.exists():
        return _Index(commitment=digest)
    index = parse_document(read_bytes(path, MOST_BYTES, "The list of receipts"), _Index, f"The list of receipts {path}")
    if index.commitment != digest:
        raise BadParamsError(f"The receipts in {path.parent} are of another commitment, sha256:{index.commitment}.")
    return index
