"""Receipts: kept whole beside their commitment, and stamps that a real authority made are verified offline."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from socket import create_server, socket
from threading import Thread

import pytest

from amb.errors import AmbError, BadParamsError, MissingDependencyError, MissingError, StoreError, UsageError
from amb.ownership.commitment import read_commitment
from amb.ownership.receipts import attach, check_receipt, read_receipt, read_receipts, receipts_folder, stamp
from amb.ownership.timestamps import read_certificates, read_stamp, request_stamp, verify_stamp
from amb.runtime.paths import OFFLINE
from tests.ownership.making import Authority, answer_query, make_authority, make_commitment, needs_stamps, serve


@pytest.fixture
def commitment(tmp_path: Path) -> Path:
    make_commitment().write(tmp_path / "commitment.json")
    return tmp_path / "commitment.json"


# Any file


def test_any_file_is_kept_beside_the_commitment(commitment: Path, tmp_path: Path) -> None:
    (tmp_path / "letter.pdf").write_bytes(b"%PDF-1.7")
    (tmp_path / "commitment.json.ots").write_bytes(b"\x00OpenTimestamps")
    attach(commitment, tmp_path / "letter.pdf", "2026-11-27", "Notary's register 1234")
    attach(commitment, tmp_path / "commitment.json.ots")
    assert receipts_folder(commitment) == tmp_path / "commitment.receipts"
    letter, proof = read_receipts(commitment)
    assert (letter.file, letter.date, letter.note, letter.kind) == (
        "letter.pdf",
        "2026-11-27",
        "Notary's register 1234",
        "attached",
    )
    assert "`ots verify` checks it" in proof.note
    assert read_receipt(commitment, letter) == b"%PDF-1.7"
    assert check_receipt(commitment, letter) is None
    assert sorted(path.name for path in (tmp_path / "commitment.receipts").iterdir()) == [
        "commitment.json.ots", "letter.pdf", "receipts.json",
    ]  # fmt: skip


def test_a_changed_or_missing_receipt_is_found(commitment: Path, tmp_path: Path) -> None:
    (tmp_path / "letter.pdf").write_bytes(b"%PDF-1.7")
    kept = attach(commitment, tmp_path / "letter.pdf")
    (tmp_path / "commitment.receipts" / "letter.pdf").write_bytes(b"%PDF-1.8")
    with pytest.raises(AmbError, match="was changed since it was attached"):
        read_receipt(commitment, kept)
    (tmp_path / "commitment.receipts" / "letter.pdf").unlink()
    with pytest.raises(MissingError, match="does not exist"):
        read_receipt(commitment, kept)


def test_a_second_receipt_of_one_name_replaces_nothing(commitment: Path, tmp_path: Path) -> None:
    (tmp_path / "letter.pdf").write_bytes(b"one")
    attach(commitment, tmp_path / "letter.pdf")
    (tmp_path / "letter.pdf").write_bytes(b"two")
    with pytest.raises(UsageError, match="Rename the new one"):
        attach(commitment, tmp_path / "letter.pdf")
    assert read_receipt(commitment, read_receipts(commitment)[0]) == b"one"


def test_receipts_of_another_commitment_are_refused(commitment: Path, tmp_path: Path) -> None:
    (tmp_path / "letter.pdf").write_bytes(b"one")
    attach(commitment, tmp_path / "letter.pdf")
    commitment.unlink()
    make_commitment(level=0.5).write(commitment)
    for call in (lambda: read_receipts(commitment), lambda: attach(commitment, tmp_path / "letter.pdf")):
        with pytest.raises(BadParamsError, match="are of another commitment"):
            call()


@pytest.mark.parametrize("name", [".hidden", "receipts.json", "a\nb.pdf", "a\\b.pdf", "x" * 201, "a:b"])
def test_names_that_are_not_plain_are_refused(name: str, commitment: Path, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(UsageError, match="is refused: file") as caught:
        attach(commitment, tmp_path / name)
    assert str(caught.value).isprintable()
    assert not receipts_folder(commitment).exists()


@pytest.mark.parametrize("date", ["yesterday", "2026-13-01", "2026-11-27T08:00:00", "2026-11-27\n", "2" * 100])
def test_dates_that_are_none_are_refused(date: str, commitment: Path, tmp_path: Path) -> None:
    (tmp_path / "letter.pdf").write_bytes(b"one")
    with pytest.raises(UsageError, match="is refused: date"):
        attach(commitment, tmp_path / "letter.pdf", date)


def test_notes_with_control_characters_and_big_files_are_refused(commitment: Path, tmp_path: Path) -> None:
    (tmp_path / "letter.pdf").write_bytes(b"one")
    with pytest.raises(UsageError, match="note: should have no control characters"):
        attach(commitment, tmp_path / "letter.pdf", note="\x1b[2J")
    with (tmp_path / "big.bin").open("wb") as file:
        file.truncate((64 << 20) + 1)
    with pytest.raises(UsageError, match="larger than 67,108,864 bytes"):
        attach(commitment, tmp_path / "big.bin")


ENTRY = {"file": "a.pdf", "sha256": "a" * 64, "kind": "attached", "date": None, "note": ""}
LIST = {"format": "amb-receipts/1", "commitment": make_commitment().digest, "receipts": [ENTRY]}
BAD = {
    "empty": b"",
    "nested": b"[" * 100_000,
    "huge": b'{"format": "' + b"x" * (1 << 20) + b'"}',
    "outside": json.dumps({**LIST, "receipts": [{**ENTRY, "file": "../commitment.json"}]}).encode(),
    "absolute": json.dumps({**LIST, "receipts": [{**ENTRY, "file": "/etc/passwd"}]}).encode(),
    "control characters": json.dumps({**LIST, "receipts": [{**ENTRY, "note": "\x1b[2J"}]}).encode(),
    "kind": json.dumps({**LIST, "receipts": [{**ENTRY, "kind": "sworn"}]}).encode(),
    "many": json.dumps({**LIST, "receipts": [ENTRY] * 1001}).encode(),
    "wrong types": json.dumps({**LIST, "receipts": {"a": 1}}).encode(),
}


@pytest.mark.parametrize("case", list(BAD))
def test_hostile_lists_are_refused_in_one_line(case: str, commitment: Path) -> None:
    receipts_folder(commitment).mkdir()
    (receipts_folder(commitment) / "receipts.json").write_bytes(BAD[case])
    with pytest.raises(UsageError) as caught:
        read_receipts(commitment)
    assert str(caught.value).isprintable()


def test_a_folder_that_cannot_be_made_is_said(commitment: Path, tmp_path: Path) -> None:
    (tmp_path / "letter.pdf").write_bytes(b"one")
    receipts_folder(commitment).write_text("a file")
    with pytest.raises((StoreError, UsageError), match="cannot be"):
        attach(commitment, tmp_path / "letter.pdf")


# Time stamps


@pytest.fixture(scope="module")
def authority_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("authority") / "tsa"
    make_authority(folder)
    return folder


@pytest.fixture
def authority(authority_folder: Path) -> Authority:
    return Authority(authority_folder)


@pytest.fixture
def url(authority: Authority) -> Iterator[str]:
    with serve(authority) as address:
        yield address


@needs_stamps
def test_an_authority_stamps_the_digest_and_nothing_else(commitment: Path, authority: Authority, url: str) -> None:
    root = read_certificates(authority.folder / "ca.pem")
    receipt = stamp(commitment, url, root)
    digest = read_commitment(commitment).digest
    ((kind, query),) = authority.asked
    assert kind == "application/timestamp-query"
    assert bytes.fromhex(digest) in query
    assert len(query) < 80
    assert re.fullmatch(r"127\.0\.0\.1-\d{8}T\d{6}Z\.tsr", receipt.file)
    time = check_receipt(commitment, receipt, root)
    assert time is not None
    assert abs(time - datetime.now(UTC)) < timedelta(minutes=1)
    assert receipt.date == f"{time:%Y-%m-%dT%H:%M:%SZ}"
    assert check_receipt(commitment, receipt) is None


@needs_stamps
def test_openssl_verifies_the_same_stamp(commitment: Path, authority: Authority, url: str) -> None:
    receipt = stamp(commitment, url)
    answer = receipts_folder(commitment) / receipt.file
    command = ["openssl", "ts", "-verify", "-data", str(commitment), "-in", str(answer), "-CAfile", "ca.pem"]
    done = subprocess.run(
        [*command, "-untrusted", "tsa.pem"], cwd=authority.folder, capture_output=True, text=True, check=False
    )
    assert "Verification: OK" in done.stdout + done.stderr


@needs_stamps
def test_a_stamp_of_something_else_by_somebody_else_or_changed_is_refused(
    commitment: Path, authority: Authority, url: str, tmp_path: Path
) -> None:
    root = read_certificates(authority.folder / "ca.pem")
    answer = request_stamp(b"hello", url)
    digest = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"
    assert verify_stamp(answer, digest, root) == read_stamp(answer, digest)
    with pytest.raises(AmbError, match="is on another digest"):
        verify_stamp(answer, read_commitment(commitment).digest, root)
    other = make_authority(tmp_path / "other")
    with pytest.raises(AmbError, match=r"does not hold under these root certificates: .* pkcs7 signature\.$"):
        verify_stamp(answer, digest, read_certificates(other))
    with pytest.raises(
        AmbError, match="does not hold under these root certificates"
    ):  # its own does not help another root
        verify_stamp(answer, digest, [*read_certificates(other), *read_certificates(authority.folder / "tsa.pem")])
    with pytest.raises(UsageError, match="None of the certificates is a root"):
        verify_stamp(answer, digest, read_certificates(authority.folder / "tsa.pem"))


@needs_stamps
def test_a_changed_byte_never_changes_the_time(authority: Authority, url: str) -> None:
    root = read_certificates(authority.folder / "ca.pem")
    answer = request_stamp(b"hello", url)
    digest = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"
    time, refused = verify_stamp(answer, digest, root), 0
    for at in range(len(answer)):
        changed = bytearray(answer)
        changed[at] ^= 1
        try:
            assert verify_stamp(bytes(changed), digest, root) == time
        except AmbError as error:
            assert str(error).isprintable()
            refused += 1
    assert refused > 0.9 * len(answer)


@needs_stamps
def test_answers_that_are_none_are_refused_and_nothing_is_kept(
    commitment: Path, authority: Authority, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    earlier = answer_query(authority.folder, _make_query(commitment))
    answers = {
        "no time stamp": b"<html>hello</html>",
        "no time stamp of RFC 3161": b"",
        "larger than": bytes((1 << 20) + 1),
        "did not grant": bytes.fromhex("30 0d 30 0b 02 01 02 30 06 0c 04 62 75 73 79"),
        "answers another request": earlier,
    }
    for says, data in answers.items():
        monkeypatch.setattr(authority, "answer", lambda _, data=data: data)
        with pytest.raises(AmbError, match=says) as caught:
            stamp(commitment, url)
        assert str(caught.value).isprintable()
    authority.status = 503
    with pytest.raises(AmbError, match="HTTP status 503"):
        stamp(commitment, url)
    assert not receipts_folder(commitment).exists()


def _make_query(commitment: Path) -> bytes:
    from rfc3161_client import HashAlgorithm, TimestampRequestBuilder

    data = read_commitment(commitment).encode()
    query: bytes = TimestampRequestBuilder().data(data).hash_algorithm(HashAlgorithm.SHA256).build().as_bytes()
    return query


@needs_stamps
@pytest.mark.parametrize(
    "url", ["file:///etc/passwd", "ftp://host/x", "host/x", "", "http://", "http://[", "javascript:x", "http:\x1b"]
)
def test_addresses_that_are_none_are_refused(url: str, commitment: Path) -> None:
    with pytest.raises(UsageError, match="is no address of a time-stamping authority") as caught:
        stamp(commitment, url)
    assert str(caught.value).isprintable()


@needs_stamps
def test_where_nobody_answers_it_says_so(commitment: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(AmbError, match=r"No stamp came from http://me:\*\*\*@127\.0\.0\.1:9/tsr within 2 s"):
        stamp(commitment, "http://me:secret@127.0.0.1:9/tsr", seconds=2)
    monkeypatch.setenv(OFFLINE[0], "1")
    with pytest.raises(UsageError, match="asked for offline"):
        stamp(commitment, "http://127.0.0.1:9/tsr")


@needs_stamps
def test_an_authority_that_hangs_is_not_waited_for(commitment: Path, authority: Authority, url: str) -> None:
    import time

    authority.answer = lambda _: time.sleep(0.6) or b""  # type: ignore[func-returns-value, method-assign]
    with pytest.raises(AmbError, match=r"within 0\.2 s: (timed out|The read operation timed out)"):
        stamp(commitment, url, seconds=0.2)


@needs_stamps
def test_an_authority_that_answers_drop_by_drop_is_not_waited_for(commitment: Path) -> None:
    import time

    def drip(connection: socket) -> None:
        connection.recv(1 << 16)
        connection.sendall(b"HTTP/1.0 200 OK\r\n\r\n")
        with suppress(OSError):
            for _ in range(50):
                connection.sendall(b"0")
                time.sleep(0.05)

    with create_server(("127.0.0.1", 0)) as server:
        Thread(target=lambda: drip(server.accept()[0]), daemon=True).start()
        start = time.monotonic()
        with pytest.raises(AmbError, match=r"within 0\.3 s: the answer goes on and on"):
            stamp(commitment, f"http://127.0.0.1:{server.getsockname()[1]}/tsr", seconds=0.3)
    assert time.monotonic() - start < 2


def test_without_the_library_it_says_what_to_install(commitment: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rfc3161_client", None)
    with pytest.raises(MissingDependencyError, match="pip install rfc3161-client"):
        stamp(commitment, "http://127.0.0.1:9/tsr")
    with pytest.raises(MissingDependencyError, match="pip install rfc3161-client"):
        read_stamp(b"", "a" * 64)


@pytest.mark.parametrize(
    "data", [b"", b"\x30\x00", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", b"x" * 1000]
)
def test_damaged_certificates_are_refused(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "root.pem").write_bytes(data)
    with pytest.raises(BadParamsError, match="holds no certificate"):
        read_certificates(tmp_path / "root.pem")
