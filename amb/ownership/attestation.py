"""Signed findings: an in-toto Statement about a suspect in a DSSE envelope, as verifiers of software releases read them.

The predicate takes the form of `eval-result` v0.1, which is proposed to in-toto and not among its vetted predicates yet; what it
has no word for stands under `ambOwnership`. As in-toto has it, what a reader does not know he ignores.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from pydantic.alias_generators import to_camel

from amb.errors import AmbError, BadParamsError, UsageError
from amb.ownership.canonical import encode_canonical
from amb.ownership.commitment import Time
from amb.ownership.documents import MOST_BYTES, Digest, Text, parse_document
from amb.ownership.identity import key_id

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

STATEMENT: Final = "https://in-toto.io/Statement/v1"
PREDICATE: Final = "https://in-toto.io/attestation/eval-result/v0.1"
PAYLOAD: Final = "application/vnd.in-toto+json"
MOST_SIGNATURES: Final = 32
_Base64 = Annotated[str, StringConstraints(max_length=MOST_BYTES)]


class _Open(BaseModel):
    """A part of a statement: names as in-toto spells them, and what is not known is ignored."""

    model_config = ConfigDict(
        frozen=True, strict=True, alias_generator=to_camel, validate_by_name=True, validate_by_alias=True
    )


class Version(_Open):
    """A program, or a set of tests, and its version."""

    name: Text
    version: Text


class Verifier(_Open):
    """Who found it: an address or another URI, such as `urn:sha256:` with a key id."""

    id: Text


class Claim(_Open):
    """A figure against a threshold: `metric comparator threshold` held, or did not."""

    metric: Text
    comparator: Literal[">=", ">", "<=", "<"]
    threshold: Annotated[str, StringConstraints(pattern=r"^-?[0-9]{1,40}(\.[0-9]{1,400})?$")]
    """A decimal as text, so that nobody rounds it."""
    passed: bool


class Committed(_Open):
    """A digest; `salted` where it was made with a secret salt and is of no file."""

    alg: Text = "sha256"
    value: Digest
    salted: bool


class Commitments(_Open):
    """What the finding is about, without showing it. Where no images are read there is no data set."""

    model: Committed
    dataset: Committed | None = None


class Registered(_Open):
    """What was fixed before: here the commitment's digest."""

    alg: Literal["sha256"] = "sha256"
    value: Digest


class EvalResult(_Open):
    """The predicate."""

    verifier: Verifier
    evaluated_at: Time
    suite: Version
    claims: Annotated[tuple[Claim, ...], Field(min_length=1, max_length=1_000)]
    sample_size: int = Field(ge=0)
    commitments: Commitments
    assurance_level: Literal["self_attested", "third_party", "reproduced", "enclave_attested"]
    subject_profile: Literal["receipt", "public-model", "release-gate"] = "public-model"
    pre_registration: Registered | None = None
    harness: Version | None = None
    amb_ownership: Annotated[Mapping[Text, Text], Field(max_length=100)] = Field(default_factory=dict)
    """Of this project: what the form has no word for, such as what kind of claim it is and what it rests on."""


class DigestSet(_Open):
    """The digests of a subject."""

    sha256: Digest


class Subject(_Open):
    """What the statement is about. It is known by its digest; the name is a hint."""

    name: Text = "_"
    digest: DigestSet


class Statement(_Open):
    """An in-toto Statement of version 1."""

    type: Literal["https://in-toto.io/Statement/v1"] = Field(STATEMENT, alias="_type")
    subject: Annotated[tuple[Subject, ...], Field(min_length=1, max_length=1_000)]
    predicate_type: Literal["https://in-toto.io/attestation/eval-result/v0.1"] = PREDICATE
    predicate: EvalResult

    def encode(self) -> bytes:
        """The bytes that are signed: canonical JSON."""
        return encode_canonical(self.model_dump(mode="json", by_alias=True, exclude_none=True))


class Signature(_Open):
    """One signature; `keyid` says which key to try and is believed in nothing."""

    keyid: Annotated[str, StringConstraints(max_length=500)] = Field("", alias="keyid")
    sig: Annotated[str, StringConstraints(max_length=1_000)]


class Envelope(_Open):
    """A DSSE envelope."""

    payload: _Base64
    payload_type: Literal["application/vnd.in-toto+json"] = PAYLOAD
    signatures: Annotated[tuple[Signature, ...], Field(min_length=1, max_length=MOST_SIGNATURES)]

    def encode(self) -> bytes:
        """The JSON of a file of it."""
        return encode_canonical(self.model_dump(mode="json", by_alias=True))


@dataclass(frozen=True)
class Verified:
    """A statement, and the ids of the given keys that signed it."""

    statement: Statement
    signers: tuple[str, ...]


def encode_pae(payload_type: str, payload: bytes) -> bytes:
    """DSSE's pre-authentication encoding: what is signed, the type and the payload with their lengths."""
    kind = payload_type.encode("utf-8")
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def make_statement(subjects: Mapping[str, str], predicate: EvalResult) -> Statement:
    """A statement about things given as name and SHA-256; the suspect comes first."""
    found = tuple(Subject(name=name, digest=DigestSet(sha256=digest)) for name, digest in subjects.items())
    return Statement(subject=found, predicate=predicate)


def sign_statement(statement: Statement, *keys: Ed25519PrivateKey) -> Envelope:
    """The statement in an envelope, signed with each key. Raises UsageError where there is none."""
    if not keys:
        raise UsageError("A statement is signed with one key at least. `amb identity new` makes one.")
    payload = statement.encode()
    signed = encode_pae(PAYLOAD, payload)
    signatures = tuple(
        Signature(keyid=key_id(key.public_key()), sig=base64.b64encode(key.sign(signed)).decode()) for key in keys
    )
    return Envelope(payload=base64.b64encode(payload).decode(), signatures=signatures)


def verify_envelope(data: bytes, public_keys: Sequence[Ed25519PublicKey]) -> Verified:
    """The statement of an envelope that one of the given keys signed, at least. Raises AmbError where none did.

    The signature is verified before the statement is read, over the bytes as they came.
    """
    envelope = parse_document(data, Envelope, "The signed statement")
    payload = decode_base64(envelope.payload, "payload")
    signed = encode_pae(envelope.payload_type, payload)
    signatures = [decode_base64(each.sig, "signature") for each in envelope.signatures]
    signers = [key_id(key) for key in public_keys if any(_is_signed(key, each, signed) for each in signatures)]
    if not signers:
        raise AmbError(_explain_unsigned(envelope, public_keys))
    return Verified(parse_document(payload, Statement, "The signed statement"), tuple(dict.fromkeys(signers)))


def decode_base64(text: str, what: str) -> bytes:
    """Base64 in the standard or the URL's alphabet, which DSSE allows both, and nothing beside it. Raises BadParamsError."""
    standard = text.replace("-", "+").replace("_", "/") if not {"+", "/"} & set(text) else text
    try:
        data = base64.b64decode(standard, validate=True)
    except (binascii.Error, ValueError):
        data = b""
    if base64.b64encode(data).decode() != standard:  # bits left over, missing padding, or no base64 at all
        raise BadParamsError(f"The signed statement is refused: its {what} is no base64.")
    return data


def _is_signed(key: Ed25519PublicKey, signature: bytes, signed: bytes) -> bool:
    from cryptography.exceptions import InvalidSignature

    try:
        key.verify(signature, signed)
    except InvalidSignature:
        return False
    return True


def _explain_unsigned(envelope: Envelope, public_keys: Sequence[Ed25519PublicKey]) -> str:
    if {key_id(key) for key in public_keys} & {each.keyid for each in envelope.signatures}:
        return "The signed statement is refused: the signature does not fit what it says; one of them was changed."
    return "The signed statement is refused: none of the given keys signed it. Ask the signer for his public key."
