"""RFC 3161 time stamps: ask an authority for one, and verify one offline; the extra `dispute` brings the library."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from amb.errors import (
    AmbError,
    BadParamsError,
    MissingDependencyError,
    UsageError,
    mask_passwords,
    printable,
    shortened,
)
from amb.ownership.files import read_bytes
from amb.runtime.paths import is_offline

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

MOST_BYTES: Final = 1 << 20
"""Of an authority's answer, and of a file of certificates."""
SECONDS: Final = 20.0
"""To wait for an authority."""
GRANTED: Final = 0


def request_stamp(data: bytes, url: str, seconds: float = SECONDS) -> bytes:
    """An authority's stamp on the SHA-256 of data: its whole answer, of this request. Raises AmbError.

    The authority sees the digest alone. Its signature is not verified here, see `verify_stamp`.
    """
    library = _import_library()
    _require_web(url)
    builder = library.TimestampRequestBuilder().data(data).hash_algorithm(library.HashAlgorithm.SHA256)
    request = builder.nonce(nonce=True).cert_request(cert_request=True).build()
    answer = _post(url, request.as_bytes(), seconds)
    stamp = _decode(answer)
    _require_granted(stamp)
    if stamp.tst_info.nonce != request.nonce:
        raise AmbError(f"The stamp from {_shown(url)} answers another request. Try again, or another authority.")
    _require_digest(stamp, hashlib.sha256(data).digest())
    return answer


def read_stamp(answer: bytes, digest: str) -> datetime:
    """The time that a stamp on this digest states, whoever made it: its signature is not verified. Raises AmbError."""
    stamp = _decode(answer)
    _require_granted(stamp)
    _require_digest(stamp, bytes.fromhex(digest))
    return _time_of(stamp)


def verify_stamp(answer: bytes, digest: str, certificates: Sequence[Certificate]) -> datetime:
    """The time at which an authority under these root certificates stamped this digest. Raises AmbError.

    Of the certificates those that sign themselves are trusted as roots; the others help to reach them.
    """
    library = _import_library()
    roots = [each for each in certificates if each.issuer == each.subject]
    others = [each for each in certificates if each.issuer != each.subject]
    if not roots:
        raise UsageError("None of the certificates is a root, one that signs itself. Give the authority's root.")
    stamp = _decode(answer)
    _require_granted(stamp)
    _require_digest(stamp, bytes.fromhex(digest))
    try:
        verifier = library.VerifierBuilder(roots=roots, intermediates=others).build()
        verifier.verify(stamp, bytes.fromhex(digest))
    except (library.VerificationError, ValueError) as error:
        reason = printable(shortened(str(error).partition(": ErrorStack")[0]))
        raise AmbError(f"The stamp does not hold under these root certificates: {reason}.") from None
    return _time_of(stamp)


def read_certificates(path: Path) -> list[Certificate]:
    """The certificates in a PEM file, or the one in a DER file. Raises AmbError."""
    from cryptography.x509 import load_der_x509_certificate, load_pem_x509_certificates

    data = read_bytes(path, MOST_BYTES, "The certificate file")
    try:
        return load_pem_x509_certificates(data) if b"-----BEGIN" in data else [load_der_x509_certificate(data)]
    except ValueError:
        raise BadParamsError(f"{path} holds no certificate as PEM or DER. Fetch the authority's root again.") from None


def _import_library() -> Any:
    try:
        import rfc3161_client
    except ImportError:
        raise MissingDependencyError("A time stamp", "rfc3161-client") from None
    return rfc3161_client


def _require_web(url: str) -> None:
    try:
        parts = urlsplit(url)
    except ValueError:
        parts = urlsplit("")
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise UsageError(f"'{_shown(url)}' is no address of a time-stamping authority, such as https://host/path.")
    if is_offline():
        raise UsageError(f"A stamp from {_shown(url)} was asked for offline. Take --offline or AMB_OFFLINE away.")


def _post(url: str, body: bytes, seconds: float) -> bytes:
    headers = {"Content-Type": "application/timestamp-query", "Accept": "application/timestamp-reply"}
    try:
        request = Request(url, body, headers)  # noqa: S310 (http and https alone, see _require_web)
        with urlopen(request, timeout=seconds) as reply:  # noqa: S310
            answer = _read_answer(reply, time.monotonic() + seconds)
    except HTTPError as error:
        raise AmbError(f"{_shown(url)} refuses to stamp: HTTP status {error.code}. Is it the right address?") from None
    except (URLError, HTTPException, OSError, ValueError) as error:
        reason = printable(shortened(getattr(error, "reason", None) or error or type(error).__name__))
        raise AmbError(f"No stamp came from {_shown(url)} within {seconds:g} s: {reason}. Try another.") from None
    if len(answer) > MOST_BYTES:
        raise AmbError(f"The answer of {_shown(url)} is larger than {MOST_BYTES:,} bytes. Try another authority.")
    return answer


def _read_answer(reply: HTTPResponse, deadline: float) -> bytes:
    """What comes until the deadline, up to one byte too much; a server's timeout starts anew with every byte."""
    answer = b""
    while len(answer) <= MOST_BYTES and (part := reply.read1(MOST_BYTES + 1 - len(answer))):
        answer += part
        if time.monotonic() > deadline:
            raise TimeoutError("the answer goes on and on")
    return answer


def _decode(answer: bytes) -> Any:
    library = _import_library()
    try:
        return library.decode_timestamp_response(answer)
    except ValueError:
        raise BadParamsError(
            "This is no time stamp of RFC 3161 in DER, or a damaged one. Ask another authority."
        ) from None


def _require_granted(stamp: Any) -> None:
    """`granted` alone, as the library's own verification has it."""
    if stamp.status != GRANTED:
        said = printable(shortened(" ".join(stamp.status_string) or f"status {stamp.status}"))
        raise AmbError(f"The authority did not grant the stamp: {said}. Try again, or another authority.")


def _require_digest(stamp: Any, digest: bytes) -> None:
    try:
        found: bytes = stamp.tst_info.message_imprint.message
    except ValueError:
        raise BadParamsError("The time stamp is damaged: what it stamps cannot be read.") from None
    if found != digest:
        raise AmbError(f"The stamp is on another digest, {shortened(found.hex())}, not on {digest.hex()}.")


def _time_of(stamp: Any) -> datetime:
    moment: datetime = stamp.tst_info.gen_time
    return moment.astimezone(UTC)


def _shown(url: str) -> str:
    return printable(shortened(mask_passwords(url)))
