"""`evidence.zip`: what was read on a suspect, for a third party. JSON and arrays; no secret unless the key is opened."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from amb.errors import UsageError
from amb.execution.provenance import find_versions
from amb.ownership.attestation import (
    Claim,
    Commitments,
    Committed,
    EvalResult,
    Registered,
    Statement,
    Verifier,
    Version,
    make_statement,
    sign_statement,
)
from amb.ownership.canonical import encode_canonical
from amb.ownership.commitment import Commitment, utc_now
from amb.ownership.files import write_new
from amb.ownership.identity import key_id
from amb.ownership.key_facts import ABOUT, OpenedKey
from amb.ownership.key_folder import KEY, SALT
from amb.ownership.verification import Finding, describe_finding

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

FORMAT: Final = "amb-evidence/1"
FINDING, ANSWERS, COMMITMENT, STATEMENT, ENVELOPE = (
    "finding.json", "answers.npy", "commitment.json", "statement.json", "statement.dsse.json",
)  # fmt: skip
RECEIPTS, KEY_FOLDER = "commitment.receipts/", "key/"
LARGEST: Final = 2**30
"""Bytes of all members together."""
_MOST_MEMBERS: Final = 1_000


_UNREADABLE: Final = (OSError, zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, EOFError, ValueError)
"""What a file raises that is no zip, or was changed."""


@dataclass(frozen=True)
class Evidence:
    """The members of an evidence file, by name, as they were read."""

    members: Mapping[str, bytes]

    @property
    def finding(self) -> dict[str, Any]:
        """What was found. Raises UsageError."""
        return self.read_json(FINDING)

    def read_json(self, name: str) -> dict[str, Any]:
        """A member as JSON. Raises UsageError."""
        from amb.runtime.plain_json import parse_json_object

        try:
            return parse_json_object(self.members[name])
        except (KeyError, ValueError) as error:
            raise UsageError(
                f"The evidence has no readable {name} ({error}). It is damaged, or of another program."
            ) from None

    @property
    def answers(self) -> NDArray[np.float32] | None:
        """What the suspect answered, a row for each image of the key; None where weights were read. Raises UsageError."""
        if ANSWERS not in self.members:
            return None
        try:
            found = np.load(io.BytesIO(self.members[ANSWERS]), allow_pickle=False)
        except (ValueError, OSError, EOFError) as error:
            raise UsageError(f"The evidence's {ANSWERS} cannot be read ({error}). It is damaged.") from None
        return np.asarray(found, dtype=np.float32)


def write_evidence(
    path: Path,
    finding: Finding,
    opened: OpenedKey,
    *,
    answers: NDArray[np.float32] | None,
    commitment: Commitment | None,
    receipts: Mapping[str, bytes],
    signer: Ed25519PrivateKey | None,
    with_key: bool,
) -> str:
    """Write the file; the digest of its statement. Raises UsageError where one is there, StoreError."""
    members = _make_members(finding, opened, answers, commitment, receipts, with_key=with_key)
    statement = _make_statement(finding, commitment, members, key_id(signer.public_key()) if signer else None)
    if signer is None:
        members[STATEMENT] = statement.encode()
    else:
        members[ENVELOPE] = sign_statement(statement, signer).encode()
    write_new(path, _zip(members))
    return hashlib.sha256(statement.encode()).hexdigest()


def _make_members(
    finding: Finding,
    opened: OpenedKey,
    answers: NDArray[np.float32] | None,
    commitment: Commitment | None,
    receipts: Mapping[str, bytes],
    *,
    with_key: bool,
) -> dict[str, bytes]:
    found = {"format": FORMAT, "method": opened.key.method, "software": find_versions(), **describe_finding(finding)}
    members = {FINDING: encode_canonical(found)}
    if answers is not None:
        buffer = io.BytesIO()
        np.save(buffer, answers, allow_pickle=False)
        members[ANSWERS] = buffer.getvalue()
    if commitment is not None:
        members[COMMITMENT] = commitment.encode()
    members |= {f"{RECEIPTS}{name}": data for name, data in receipts.items()}
    if with_key:
        about = (json.dumps(opened.facts.model_dump(), indent=1) + "\n").encode()
        members |= {
            f"{KEY_FOLDER}{KEY}": opened.data,
            f"{KEY_FOLDER}{SALT}": opened.salt,
            f"{KEY_FOLDER}{ABOUT}": about,
        }
    return members


def _make_statement(
    finding: Finding, commitment: Commitment | None, members: Mapping[str, bytes], signer: str | None
) -> Statement:
    """What is signed: the suspect's digest, the digest of every member, and the claim."""
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in members.items()}
    suspect = finding.suspect.digest or digests[ANSWERS]
    images = Committed(value=commitment.images, salted=False) if commitment and commitment.images else None
    predicate = EvalResult(
        verifier=Verifier(id=f"urn:sha256:{signer}" if signer else "urn:amb:unsigned"),
        evaluated_at=utc_now(),
        suite=Version(name=finding.claims, version=FORMAT),
        claims=(Claim(metric="p_value", comparator="<=", threshold=f"{finding.level:.18f}", passed=finding.claim),),
        sample_size=finding.n_symbols,
        commitments=Commitments(model=Committed(value=suspect, salted=False), dataset=images),
        assurance_level="self_attested",
        pre_registration=Registered(value=commitment.digest) if commitment else None,
        harness=Version(name="amb", version=find_versions()["amb"]),
        amb_ownership={"claims": finding.claims, "basis": finding.test.basis, "p_value": f"{finding.corrected_p:.6e}"},
    )
    return make_statement({"suspect": suspect, **digests}, predicate)


def _zip(members: Mapping[str, bytes]) -> bytes:
    """The same bytes for the same members."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        for name in sorted(members):
            info = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            info.compress_type = zipfile.ZIP_DEFLATED
            file.writestr(info, members[name])
    return buffer.getvalue()


def read_evidence(path: Path) -> Evidence:
    """The members of an evidence file, read into memory and never onto the disk. Raises UsageError."""
    try:
        with path.open("rb") as opened, zipfile.ZipFile(opened) as file:
            entries = file.infolist()
            if len(entries) > _MOST_MEMBERS or sum(each.file_size for each in entries) > LARGEST:
                raise UsageError(f"{path} is refused: it holds more than evidence does.")
            if len({each.filename for each in entries}) < len(entries):
                raise UsageError(f"{path} is refused: it holds two members of one name.")
            return Evidence({each.filename: file.read(each) for each in entries})
    except _UNREADABLE as error:
        text = getattr(error, "strerror", None) or error
        raise UsageError(f"{path} is no evidence, or was changed ({text}). Ask for the file again.") from None
