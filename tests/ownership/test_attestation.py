"""Statements and envelopes: the specifications' own vectors, and everything that was changed is refused."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, SECP256R1, EllipticCurvePublicNumbers
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256

from amb.errors import AmbError, BadParamsError, UsageError
from amb.ownership import attestation
from amb.ownership.attestation import (
    Claim,
    Commitments,
    Committed,
    EvalResult,
    Registered,
    Verifier,
    Version,
    decode_base64,
    encode_pae,
    make_statement,
    sign_statement,
    verify_envelope,
)
from amb.ownership.identity import key_id

SUSPECT = "5" * 64
KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
OTHER = Ed25519PrivateKey.from_private_bytes(bytes(32))


def make_result(**changes: Any) -> EvalResult:
    facts: dict[str, Any] = {
        "verifier": Verifier(id=f"urn:sha256:{key_id(KEY.public_key())}"),
        "evaluated_at": "2026-11-27T08:00:00Z",
        "suite": Version(name="spread-features", version="0.2.0"),
        "claims": (Claim(metric="p_value", comparator="<=", threshold="0.000001", passed=True),),
        "sample_size": 64,
        "commitments": Commitments(model=Committed(value="a" * 64, salted=True)),
        "assurance_level": "self_attested",
        "pre_registration": Registered(value="b" * 64),
        "harness": Version(name="amb", version="0.2.0"),
        "amb_ownership": {"claim": "marked release"},
    }
    return EvalResult(**{**facts, **changes})


STATEMENT = make_statement({"suspect": SUSPECT}, make_result())


# The specifications' vectors


def test_pae_is_the_specifications() -> None:
    """The example of DSSE 1.0, with its signature by a key of P-256."""
    pae = encode_pae("http://example.com/HelloWorld", b"hello world")
    assert pae == b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    assert encode_pae("é", b"") == b"DSSEv1 2 \xc3\xa9 0 "
    x = 46950820868899156662930047687818585632848591499744589407958293238635476079160
    y = 5640078356564379163099075877009565129882514886557779369047442380624545832820
    raw = base64.b64decode("A3JqsQGtVsJ2O2xqrI5IcnXip5GToJ3F+FnZ+O88SjtR6rDAajabZKciJTfUiHqJPcIAriEGAHTVeCUjW2JIZA==")
    signature = encode_dss_signature(int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:], "big"))
    EllipticCurvePublicNumbers(x, y, SECP256R1()).public_key().verify(signature, pae, ECDSA(SHA256()))


RFC_8032 = [
    ("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
     "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a", "",
     "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b"),
    ("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
     "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c", "72",
     "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"),
    ("c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
     "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025", "af82",
     "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a"),
]  # fmt: skip


@pytest.mark.parametrize(("secret", "public", "message", "signature"), RFC_8032)
def test_signatures_are_those_of_rfc_8032(secret: str, public: str, message: str, signature: str) -> None:
    key = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(secret))
    assert key.public_key().public_bytes_raw().hex() == public
    assert key.sign(bytes.fromhex(message)).hex() == signature
    given = Ed25519PublicKey.from_public_bytes(bytes.fromhex(public))
    assert attestation._is_signed(given, bytes.fromhex(signature), bytes.fromhex(message))
    assert not attestation._is_signed(given, bytes.fromhex(signature), b"another")


# The form


def test_the_statement_is_in_totos() -> None:
    shown = json.loads(STATEMENT.encode())
    assert {name: shown[name] for name in ("_type", "subject", "predicateType")} == {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": "suspect", "digest": {"sha256": SUSPECT}}],
        "predicateType": "https://in-toto.io/attestation/eval-result/v0.1",
    }
    assert set(shown["predicate"]) == {
        "verifier", "evaluatedAt", "suite", "claims", "sampleSize", "commitments", "assuranceLevel", "subjectProfile",
        "preRegistration", "harness", "ambOwnership",
    }  # fmt: skip
    assert shown["predicate"]["commitments"] == {"model": {"alg": "sha256", "value": "a" * 64, "salted": True}}


def test_the_envelope_is_dsses_and_comes_back() -> None:
    data = sign_statement(STATEMENT, KEY).encode()
    envelope = json.loads(data)
    assert set(envelope) == {"payload", "payloadType", "signatures"}
    assert envelope["payloadType"] == "application/vnd.in-toto+json"
    payload = base64.b64decode(envelope["payload"])
    (signature,) = envelope["signatures"]
    KEY.public_key().verify(base64.b64decode(signature["sig"]), encode_pae(envelope["payloadType"], payload))
    assert signature["keyid"] == key_id(KEY.public_key())
    verified = verify_envelope(data, [OTHER.public_key(), KEY.public_key()])
    assert verified.statement == STATEMENT
    assert verified.signers == (key_id(KEY.public_key()),)


def test_several_may_sign() -> None:
    data = sign_statement(STATEMENT, KEY, OTHER).encode()
    both = {key_id(KEY.public_key()), key_id(OTHER.public_key())}
    assert set(verify_envelope(data, [KEY.public_key(), OTHER.public_key()]).signers) == both
    assert verify_envelope(data, [OTHER.public_key()] * 3).signers == (key_id(OTHER.public_key()),)
    with pytest.raises(UsageError, match="one key at least"):
        sign_statement(STATEMENT)


def test_what_a_reader_does_not_know_he_ignores() -> None:
    shown = json.loads(STATEMENT.encode())
    shown["later"] = shown["predicate"]["later"] = {"a": [1]}
    data = sign_bytes(json.dumps(shown).encode())
    assert verify_envelope(data, [KEY.public_key()]).statement == STATEMENT


def sign_bytes(payload: bytes, **changes: Any) -> bytes:
    """An envelope around any bytes, with a signature that holds."""
    signed = base64.b64encode(KEY.sign(encode_pae("application/vnd.in-toto+json", payload))).decode()
    envelope = {
        "payload": base64.b64encode(payload).decode(),
        "payloadType": "application/vnd.in-toto+json",
        "signatures": [{"keyid": key_id(KEY.public_key()), "sig": signed}],
    }
    return json.dumps({**envelope, **changes}).encode()


# What was changed


def test_a_changed_statement_another_key_and_no_key_are_refused() -> None:
    envelope = json.loads(sign_statement(STATEMENT, KEY).encode())
    payload = base64.b64decode(envelope["payload"]).replace(b'"passed":true', b'"passed":false')
    changed = json.dumps({**envelope, "payload": base64.b64encode(payload).decode()}).encode()
    with pytest.raises(AmbError, match="the signature does not fit what it says"):
        verify_envelope(changed, [KEY.public_key()])
    for keys in ([OTHER.public_key()], []):
        with pytest.raises(AmbError, match="none of the given keys signed it"):
            verify_envelope(json.dumps(envelope).encode(), keys)


def test_the_key_id_is_believed_in_nothing() -> None:
    envelope = json.loads(sign_statement(STATEMENT, KEY).encode())
    envelope["signatures"][0]["keyid"] = key_id(OTHER.public_key())
    assert verify_envelope(json.dumps(envelope).encode(), [KEY.public_key()]).signers == (key_id(KEY.public_key()),)
    with pytest.raises(AmbError, match="does not fit"):
        verify_envelope(json.dumps(envelope).encode(), [OTHER.public_key()])
    del envelope["signatures"][0]["keyid"]
    assert verify_envelope(json.dumps(envelope).encode(), [KEY.public_key()])


def test_either_base64_is_read_and_no_third() -> None:
    data = bytes(range(256))
    assert decode_base64(base64.b64encode(data).decode(), "payload") == data
    assert decode_base64(base64.urlsafe_b64encode(data).decode(), "payload") == data
    for text in ("YQ", "YQ=", "YR==", "YQ==\n", " YQ==", "Y*==", "+-==", "YQ==YQ==", "é", "===="):
        with pytest.raises(BadParamsError, match="its payload is no base64"):
            decode_base64(text, "payload")


BAD = {
    "empty": b"",
    "no json": b"{",
    "list": b"[]",
    "nested": b"[" * 100_000,
    "nested in the payload": sign_bytes(b'{"a":' * 100_000),
    "huge": b'{"payload": "' + b"A" * (1 << 20) + b'"}',
    "nan": b'{"payload": NaN}',
    "not utf-8": b"\xff\xfe",
    "twice": b'{"payload": "", "payload": ""}',
    "number": b'{"a": ' + b"9" * 10_000 + b"}",
    "no signatures": sign_bytes(STATEMENT.encode(), signatures=[]),
    "many signatures": sign_bytes(STATEMENT.encode(), signatures=[{"sig": ""}] * 33),
    "signature of another type": sign_bytes(STATEMENT.encode(), signatures=[{"sig": 5}]),
    "short signature": sign_bytes(STATEMENT.encode(), signatures=[{"sig": "YQ=="}]),
    "another type of payload": sign_bytes(STATEMENT.encode(), payloadType="application/json"),
    "payload without a statement": sign_bytes(b"hello"),
    "another statement": sign_bytes(STATEMENT.encode().replace(b"Statement/v1", b"Statement/v9")),
    "another predicate": sign_bytes(STATEMENT.encode().replace(b"eval-result", b"test-result")),
    "control characters": sign_bytes(STATEMENT.encode().replace(b"suspect", b"\\u001b[2J\\n")),
    "no subject": sign_bytes(STATEMENT.encode().replace(SUSPECT.encode(), b"")),
    "float threshold": sign_bytes(STATEMENT.encode().replace(b'"0.000001"', b"0.000001")),
}


@pytest.mark.parametrize("case", list(BAD))
def test_hostile_envelopes_are_refused_in_one_line(case: str) -> None:
    with pytest.raises(AmbError) as caught:
        verify_envelope(BAD[case], [KEY.public_key()])
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 500
