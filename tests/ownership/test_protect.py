"""`protect`: a marked copy, its key, the commitment; finished steps stay, and nothing is half there."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest
import torch

import amb
from amb.errors import StoreError, UsageError
from amb.ownership import protect as room
from amb.ownership.commitment import hash_files, read_commitment
from amb.ownership.key_facts import open_key
from amb.plugin.manager import Manager
from tests.ownership.protecting import METHOD, protect_toy, shipped

FOLDER = ["commitment.json", "key", "model", "report.html", "report.json"]


def never() -> str:
    raise AssertionError("no passphrase is asked for")


def test_a_protected_folder_holds_all_that_an_owner_needs(manager: Manager, tmp_path: Path) -> None:
    folder = protect_toy(manager, tmp_path / "protected")
    assert sorted(path.name for path in folder.iterdir()) == FOLDER
    opened = open_key(folder / "key", never)
    commitment = read_commitment(folder / "commitment.json")
    assert commitment.check_key(opened.salt, opened.data)
    assert commitment.check_files(folder / "model").passed
    assert commitment.marked.tensors == shipped(folder).full_digest()
    assert commitment.unmarked.tensors == amb.load_model("toy/owner").full_digest() == opened.facts.unmarked_digest
    assert commitment.claim == "marked release"
    assert not (tmp_path / "protected.partial").exists()


def test_keys_are_drawn_from_randomness_and_are_for_the_owner_alone(manager: Manager, tmp_path: Path) -> None:
    folders = [protect_toy(manager, tmp_path / name) for name in ("one", "two")]
    keys = [open_key(folder / "key", never).key for folder in folders]
    assert keys[0].tensors["secret"].tobytes() != keys[1].tensors["secret"].tobytes()
    assert not any(key.reproducible for key in keys)
    for folder in folders:
        assert stat.S_IMODE((folder / "key").stat().st_mode) == 0o700
        for name in ("key.safetensors", "salt"):
            assert stat.S_IMODE((folder / "key" / name).stat().st_mode) == 0o600


def test_no_public_file_holds_a_part_of_the_key(
    manager: Manager, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = protect_toy(manager, tmp_path / "protected")
    opened = open_key(folder / "key", never)
    secret = opened.key.tensors["secret"].tobytes()
    forms = [secret, secret.hex().encode(), opened.salt, opened.salt.hex().encode()]
    said = "".join(capfd.readouterr()).encode()
    public = [path for path in folder.rglob("*") if path.is_file() and path.parent.name != "key"]
    assert len(public) == 5
    for text in (said, *(path.read_bytes() for path in public)):
        assert not any(form in text for form in forms)


def test_a_step_that_was_finished_is_not_done_again(
    manager: Manager, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed behind the embedding: the same call goes on, with the same key."""
    kept = {}

    def die(under_way: room.Protection, *_: object) -> None:
        found = next((under_way.draft / "steps" / "embed").glob("*/key.safetensors"))
        kept["key"] = amb.Key.load(found).full_digest
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(room, "_assemble", die)
        with pytest.raises(KeyboardInterrupt):
            protect_toy(manager, tmp_path / "protected")
    assert not (tmp_path / "protected").exists()
    assert stat.S_IMODE((tmp_path / "protected.partial").stat().st_mode) == 0o700
    monkeypatch.setattr("amb_spread.weights_torch.embed", None)  # would raise if it were called
    folder = protect_toy(manager, tmp_path / "protected")
    assert open_key(folder / "key", never).key.full_digest == kept["key"]


def test_what_was_begun_for_another_request_is_not_gone_on_with(
    manager: Manager, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(room, "_assemble", lambda *_: os.kill(os.getpid(), 0) or (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            protect_toy(manager, tmp_path / "protected")
    with pytest.raises(UsageError, match="beginning of another request"):
        protect_toy(manager, tmp_path / "protected", method=f"{METHOD},strength=0.1")


def test_nothing_is_written_over(manager: Manager, tmp_path: Path) -> None:
    (tmp_path / "protected").mkdir()
    with pytest.raises(UsageError, match="exists already"):
        protect_toy(manager, tmp_path / "protected")


def test_a_disk_that_refuses_is_one_line(manager: Manager, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(room.os, "link", refuse)
    with pytest.raises(StoreError, match=r"No space left.*goes on"):
        protect_toy(manager, tmp_path / "protected")
    assert not (tmp_path / "protected").exists()


def test_a_mark_that_is_not_there_protects_nothing(manager: Manager, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not carry the mark"):
        protect_toy(manager, tmp_path / "protected", method="spread-weights:n_messages=1,n_bits=8")


def test_the_self_test_says_what_survives_and_who_stays_silent(manager: Manager, tmp_path: Path) -> None:
    folder = protect_toy(manager, tmp_path / "protected", self_test="quick")
    rows = json.loads((folder / "report.json").read_text())["self_test"]
    claims = {(row["model"], row["attack"].partition(":")[0]): row.get("claim") for row in rows}
    assert claims["marked", "none"] and claims["marked", "prune"] and claims["marked", "quantize"]
    assert not any(claim for (model, _), claim in claims.items() if model == "unmarked")
    page = (folder / "report.html").read_text()
    assert "What it survives" in page
    assert read_commitment(folder / "commitment.json").digest in page


def test_only_the_matrices_of_the_marked_copy_differ(manager: Manager, tmp_path: Path) -> None:
    folder = protect_toy(manager, tmp_path / "protected")
    before, after = amb.load_model("toy/owner").state_dict(), shipped(folder).state_dict()
    changed = {name for name in after if not torch.equal(before[name], after[name])}
    assert changed == set(json.loads((folder / "report.json").read_text())["changed"])
    assert 0 < len(changed) < len(after)


def test_the_files_are_those_of_the_commitment(manager: Manager, tmp_path: Path) -> None:
    folder = protect_toy(manager, tmp_path / "protected")
    assert hash_files(folder / "model") == dict(read_commitment(folder / "commitment.json").marked.files)
