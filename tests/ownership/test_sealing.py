"""Seals: what is sealed comes back with the passphrase alone, and a stranger's header costs no memory."""

from __future__ import annotations

import io
import os
import struct
import sys
from pathlib import Path

import pytest

from amb.errors import AmbError, UsageError
from amb.ownership import sealing
from amb.ownership.sealing import ask_passphrase, seal, unseal


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A cheap scrypt, where its cost is not what is tested."""
    monkeypatch.setattr(sealing, "LOG_N", 10)


def test_what_is_sealed_comes_back_at_full_cost() -> None:
    sealed = seal(b"the key", "correct horse")
    assert sealed[:13] == b"AMBSEAL1" + bytes([17]) + struct.pack(">HH", 8, 1)
    assert b"the key" not in sealed
    assert unseal(sealed, "correct horse") == b"the key"


def test_the_key_is_scrypts(quick: None) -> None:
    """RFC 7914's vector of n = 16384; its 64 bytes begin with the 32 that are taken here."""
    made = sealing._derive_key("pleaseletmein", b"SodiumChloride", 14, 8, 1)
    assert made.hex() == "7023bdcb3afd7348461c06cd81fd38ebfda8fbba904f8e3ea9b543f6545da1f2"


def test_two_seals_of_one_secret_differ_everywhere_but_in_the_parameters(quick: None) -> None:
    one, two = seal(b"the key", "x"), seal(b"the key", "x")
    assert one[:13] == two[:13]
    assert one[13:29] != two[13:29]
    assert one[29:41] != two[29:41]


def test_every_byte_counts(quick: None) -> None:
    sealed = seal(b"the key", "x")
    for at in range(len(sealed)):
        changed = bytearray(sealed)
        changed[at] ^= 1
        with pytest.raises(AmbError, match=r"^(The seal|This is no sealed file)"):
            unseal(bytes(changed), "x")


@pytest.mark.parametrize("passphrase", ["y", "X", "x "])
def test_another_passphrase_opens_nothing(passphrase: str, quick: None) -> None:
    with pytest.raises(
        AmbError, match=r"^The seal does not open: the passphrase is another, or the file was changed\.$"
    ):
        unseal(seal(b"the key", "x"), passphrase)


def test_a_passphrase_is_its_letters_however_they_are_composed(quick: None) -> None:
    assert unseal(seal(b"the key", "Mu\u0308nchen"), "M\u00fcnchen") == b"the key"


@pytest.mark.parametrize(
    ("log_n", "r", "p"), [(31, 8, 1), (255, 8, 1), (21, 1, 1), (20, 9, 1), (10, 65535, 1000), (0, 8, 1), (10, 0, 1), (10, 8, 0)]
)  # fmt: skip
def test_parameters_out_of_bounds_are_refused_before_memory_is_taken(log_n: int, r: int, p: int) -> None:
    header = struct.pack(">8sBHH16s12s", b"AMBSEAL1", log_n, r, p, bytes(16), bytes(12))
    with pytest.raises(AmbError, match="out of bounds"):
        unseal(header + bytes(64), "x")


@pytest.mark.parametrize("data", [b"", b"AMBSEAL1", b"AMBSEAL2" + bytes(100), bytes(1000), b"-----BEGIN"])
def test_what_is_no_sealed_file_is_refused(data: bytes) -> None:
    with pytest.raises(AmbError, match="no sealed file"):
        unseal(data, "x")


@pytest.mark.parametrize("passphrase", ["", "x" * 1025, "\ud800"])
def test_passphrases_that_are_none_are_refused(passphrase: str) -> None:
    with pytest.raises(UsageError, match="passphrase"):
        seal(b"the key", passphrase)


@pytest.mark.parametrize("written", [b"se cret\n", b"se cret", b"se cret\r\nmore\n"])
def test_a_descriptor_gives_its_first_line(written: bytes) -> None:
    reader, writer = os.pipe()
    os.write(writer, written)
    os.close(writer)
    assert ask_passphrase(reader, confirm=True) == "se cret"
    os.close(reader)


def test_a_descriptor_without_an_end_is_read_to_a_bound() -> None:
    with Path("/dev/zero").open("rb") as endless, pytest.raises(UsageError, match="1 to 1,024 bytes"):
        seal(b"", ask_passphrase(endless.fileno(), confirm=False))


def test_a_descriptor_that_cannot_be_read_is_refused() -> None:
    with pytest.raises(UsageError, match="No passphrase can be read from descriptor 1048576: Bad file descriptor"):
        ask_passphrase(1 << 20, confirm=False)
    reader, writer = os.pipe()
    os.write(writer, b"\xff\n")
    with pytest.raises(UsageError, match="it is not UTF-8"):
        ask_passphrase(reader, confirm=False)
    os.close(reader)
    os.close(writer)


def test_a_typed_passphrase_is_typed_twice_where_it_seals(monkeypatch: pytest.MonkeyPatch) -> None:
    typed = iter(["a", "a", "a", "b"])
    monkeypatch.setattr(sealing.getpass, "getpass", lambda _: next(typed))
    assert ask_passphrase(None, confirm=True) == "a"
    with pytest.raises(UsageError, match="The two passphrases differ"):
        ask_passphrase(None, confirm=True)


def test_without_a_terminal_nothing_is_typed_in_the_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("seen\n"))
    monkeypatch.setattr(os, "open", _refuse)
    with pytest.raises(UsageError, match="Give --passphrase-fd N"):
        ask_passphrase(None, confirm=False)


def _refuse(*_: object) -> int:
    raise OSError(6, "No such device or address")
