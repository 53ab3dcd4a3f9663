"""Identities: one for a folder, private to its owner, sealed where a passphrase is given."""

from __future__ import annotations

import hashlib
import stat
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from amb.errors import AmbError, BadParamsError, MissingError, UsageError
from amb.ownership import sealing
from amb.ownership.identity import default_folder, key_id, load_identity, load_public, new_identity


def never() -> str:
    raise AssertionError("nobody is asked")


def test_an_identity_is_a_pair_that_fits(tmp_path: Path) -> None:
    made = new_identity(tmp_path / "id")
    private, public = load_identity(tmp_path / "id", never), load_public(tmp_path / "id")
    public.verify(private.sign(b"hello"), b"hello")
    assert made == key_id(public) == hashlib.sha256(private.public_key().public_bytes_raw()).hexdigest()
    assert load_public(tmp_path / "id" / "public.pem") == public
    assert load_pem_private_key((tmp_path / "id" / "private.pem").read_bytes(), None)


def test_the_private_key_is_for_its_owner_alone(tmp_path: Path) -> None:
    new_identity(tmp_path / "a" / "id")
    modes = {
        path.name: stat.S_IMODE(path.stat().st_mode)
        for path in [tmp_path / "a" / "id", *(tmp_path / "a" / "id").iterdir()]
    }
    assert modes == {"id": 0o700, "private.pem": 0o600, "public.pem": 0o644}
    (tmp_path / "a" / "id" / "private.pem").chmod(0o640)
    with pytest.raises(UsageError, match=r"may be read by others\. Run: chmod 600"):
        load_identity(tmp_path / "a" / "id", never)


def test_a_sealed_identity_needs_its_passphrase(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sealing, "LOG_N", 10)
    new_identity(tmp_path, "correct horse")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["private.sealed", "public.pem"]
    assert stat.S_IMODE((tmp_path / "private.sealed").stat().st_mode) == 0o600
    assert b"BEGIN" not in (tmp_path / "private.sealed").read_bytes()
    assert load_identity(tmp_path, lambda: "correct horse").public_key() == load_public(tmp_path)
    with pytest.raises(AmbError, match="The seal does not open"):
        load_identity(tmp_path, lambda: "wrong")


@pytest.mark.parametrize("name", ["private.pem", "private.sealed", "public.pem"])
def test_nothing_is_overwritten(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("mine")
    with pytest.raises(UsageError, match="holds an identity already"):
        new_identity(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text() == "mine"


def test_it_lies_under_the_users_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "settings"))
    assert default_folder() == tmp_path / "settings" / "amb" / "identity"
    monkeypatch.delenv("XDG_CONFIG_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_folder() == tmp_path / ".config" / "amb" / "identity"


def write_other_pair(folder: Path) -> None:
    key = generate_private_key(SECP256R1())
    (folder / "private.pem").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    (folder / "public.pem").write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    (folder / "private.pem").chmod(0o600)


def test_keys_of_another_kind_are_refused(tmp_path: Path) -> None:
    write_other_pair(tmp_path)
    with pytest.raises(BadParamsError, match="is not of Ed25519"):
        load_identity(tmp_path, never)
    with pytest.raises(BadParamsError, match="is not of Ed25519"):
        load_public(tmp_path)


@pytest.mark.parametrize(
    "data", [b"", b"\x00" * 100, b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", b"x" * 70_000]
)
def test_damaged_keys_are_refused_in_one_line(data: bytes, tmp_path: Path) -> None:
    for name in ("private.pem", "public.pem"):
        (tmp_path / name).write_bytes(data)
        (tmp_path / name).chmod(0o600)
    for read in (lambda: load_identity(tmp_path, never), lambda: load_public(tmp_path)):
        with pytest.raises(UsageError) as caught:
            read()
        assert "\n" not in str(caught.value)


def test_what_is_not_there_is_missing(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="Make one: amb identity new"):
        load_identity(tmp_path, never)
    with pytest.raises(MissingError, match="does not exist"):
        load_public(tmp_path / "nobody.pem")


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    subprocess.run(["mkfifo", str(tmp_path / "public.pem")], check=True)
    with pytest.raises(UsageError, match="pipe or a device"):
        load_public(tmp_path)
