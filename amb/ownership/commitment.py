"""A commitment: what an owner fixes before a dispute, in one publishable file that shows nothing of the key.

The file is canonical JSON, so `sha256sum` of it is the commitment's digest, and other people's tools can date it.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, Field, StringConstraints

from amb.errors import UsageError
from amb.ownership.canonical import encode_canonical, hash_canonical
from amb.ownership.documents import MOST_BYTES, Digest, FileName, StrictModel, Text, parse_document
from amb.ownership.files import hash_file, list_files, read_bytes, write_new

FORMAT: Final = "amb-commitment/1"
SALT_BYTES: Final = 32
MOST_FILES: Final = 5_000
"""That a commitment may name."""
_TIME: Final = "%Y-%m-%dT%H:%M:%SZ"


def _require_time(text: str) -> str:
    if datetime.strptime(text, _TIME).replace(tzinfo=UTC).strftime(_TIME) != text:
        raise ValueError("should be a UTC time such as 2026-11-27T08:00:00Z")
    return text


Time = Annotated[str, StringConstraints(max_length=20), AfterValidator(_require_time)]
"""UTC, in seconds, such as 2026-11-27T08:00:00Z."""
Channels = Annotated[tuple[float, ...], Field(min_length=1, max_length=16)]


class Preprocessing(StrictModel):
    """What a model does to images before it looks at them."""

    image_size: int = Field(ge=1, le=65_536)
    mean: Channels
    std: Channels


class Weights(StrictModel):
    """A model: the digest of its tensors, whatever files hold them, and of each file as it lies on the disk."""

    tensors: Digest
    files: Annotated[Mapping[FileName, Digest], Field(max_length=MOST_FILES)]


@dataclass(frozen=True)
class FolderCheck:
    """How the files of a folder compare with those that a commitment names; names, sorted."""

    equal: tuple[str, ...]
    changed: tuple[str, ...]
    missing: tuple[str, ...]
    extra: tuple[str, ...]
    """Files that the commitment does not name: no fault, and not vouched for."""

    @property
    def passed(self) -> bool:
        """Whether every file that is named is there, unchanged."""
        return bool(self.equal) and not self.changed and not self.missing


class Commitment(StrictModel):
    """What is fixed: which key, how it is read, what a claim says, and which weights it is about."""

    format: Literal["amb-commitment/1"] = FORMAT
    created: Time
    """As the owner's clock said; only a receipt shows that it is so."""
    key: Digest
    """See `commit_key`."""
    method: Annotated[Text, StringConstraints(max_length=20_000)]
    """Canonical spec of the method."""
    statistic: Text
    side: Literal["greater"] = "greater"
    level: float = Field(gt=0, lt=1)
    """Largest p at which the owner will claim."""
    preprocessing: Preprocessing
    unmarked: Weights
    marked: Weights
    images: Digest | None = None
    """Of the images that the mark is read on, where it needs some."""
    claim: Literal["marked release", "lineage"]
    software: Annotated[Mapping[Text, Text], Field(max_length=1_000)]
    """Versions, by name."""

    @property
    def digest(self) -> str:
        """SHA-256 of its canonical JSON: the line to publish."""
        return hash_canonical(self.model_dump(mode="json"))

    def encode(self) -> bytes:
        """Its canonical JSON, which is what a file of it holds."""
        return encode_canonical(self.model_dump(mode="json"))

    def write(self, path: Path) -> None:
        """Write it to a new file. Raises UsageError where one is there, and StoreError."""
        write_new(path, self.encode())

    def check_key(self, salt: bytes, key_bytes: bytes) -> bool:
        """Whether this is the key that it is about. Raises UsageError for a salt of another length."""
        return hmac.compare_digest(commit_key(salt, key_bytes), self.key)

    def check_files(self, folder: Path) -> FolderCheck:
        """How a folder compares with the marked files that it names. Raises AmbError where one cannot be read."""
        return compare_files(folder, self.marked.files)


def commit_key(salt: bytes, key_bytes: bytes) -> str:
    """SHA-256 of 32 random bytes and the key's bytes after them: fixes the key and shows nothing of it."""
    if len(salt) != SALT_BYTES:
        raise UsageError(f"The salt of a key has {SALT_BYTES} bytes, and this one {len(salt):,}.")
    digest = hashlib.sha256(salt)
    digest.update(key_bytes)
    return digest.hexdigest()


def read_commitment(path: Path) -> Commitment:
    """The commitment in a file of at most 1 MiB. Raises MissingError, UsageError."""
    return parse_document(read_bytes(path, MOST_BYTES, "The commitment"), Commitment, f"The commitment {path}")


def hash_files(folder: Path) -> dict[str, str]:
    """SHA-256 of every file of a folder, by its name with `/`. Raises AmbError where one cannot be read."""
    return {name: hash_file(folder / name) for name in list_files(folder)}


def compare_files(folder: Path, named: Mapping[str, str]) -> FolderCheck:
    """How a folder compares with files of these digests. Only what is named is read."""
    there = set(list_files(folder))
    kept = {name: hash_file(folder / name) == digest for name, digest in sorted(named.items()) if name in there}
    return FolderCheck(
        equal=tuple(name for name, same in kept.items() if same),
        changed=tuple(name for name, same in kept.items() if not same),
        missing=tuple(sorted(set(named) - there)),
        extra=tuple(sorted(there - set(named))),
    )


def utc_now() -> str:
    """Now, as a commitment writes times."""
    return datetime.now(UTC).strftime(_TIME)


def describe(commitment: Commitment) -> list[tuple[str, str]]:
    """What it says, as pairs of a word and a text."""
    size = commitment.preprocessing
    facts: dict[str, Any] = {
        "created": f"{commitment.created}, by the owner's clock",
        "claim": commitment.claim,
        "method": commitment.method,
        "statistic": f"{commitment.statistic}, {commitment.side}",
        "level": f"{commitment.level:g}",
        "key": f"sha256:{commitment.key}, salted",
        "unmarked": _describe_weights(commitment.unmarked),
        "marked": _describe_weights(commitment.marked),
        "images": f"sha256:{commitment.images}" if commitment.images else "none are needed",
        "preprocessing": f"size {size.image_size}, mean {_join(size.mean)}, std {_join(size.std)}",
        "software": ", ".join(f"{name} {version}" for name, version in commitment.software.items()) or "not said",
    }
    return list(facts.items())


def _describe_weights(weights: Weights) -> str:
    n = len(weights.files)
    return f"tensors sha256:{weights.tensors}, {n:,} file{'' if n == 1 else 's'}"


def _join(values: tuple[float, ...]) -> str:
    return "/".join(f"{value:g}" for value in values)
