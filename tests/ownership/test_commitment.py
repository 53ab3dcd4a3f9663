"""Commitments: one digest for one content, nothing of the key in them, strangers' files read within bounds."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from amb.errors import AmbError, MissingError, StoreError, UsageError
from amb.ownership.commitment import Commitment, commit_key, describe, hash_files, read_commitment, utc_now
from amb.ownership.key_folder import read_key_folder, write_key_folder
from tests.ownership.making import KEY, make_commitment, make_protected


def test_the_file_has_the_digest_that_is_published(tmp_path: Path) -> None:
    commitment = make_commitment()
    commitment.write(tmp_path / "c.json")
    assert hashlib.sha256((tmp_path / "c.json").read_bytes()).hexdigest() == commitment.digest
    assert read_commitment(tmp_path / "c.json") == commitment


def test_the_digest_is_of_what_it_says_however_it_is_laid_out(tmp_path: Path) -> None:
    commitment = make_commitment()
    shown = json.loads(commitment.encode())
    (tmp_path / "c.json").write_text(json.dumps(dict(reversed(shown.items())), indent=4))
    assert read_commitment(tmp_path / "c.json").digest == commitment.digest


def test_every_field_is_in_the_digest() -> None:
    changes: dict[str, Any] = {
        "created": "2026-11-27T08:00:01Z", "key": "b" * 64, "method": "spread-weights", "statistic": "other", "level": 1e-7,
        "preprocessing": {"image_size": 225, "mean": (0.5,), "std": (0.5,)},
        "unmarked": {"tensors": "1" * 64, "files": {}}, "marked": {"tensors": "2" * 64, "files": {}},
        "images": None, "claim": "lineage", "software": {},
    }  # fmt: skip
    assert set(changes) == set(Commitment.model_fields) - {"format", "side"}
    digests = {make_commitment(**{name: value}).digest for name, value in changes.items()}
    assert len(digests | {make_commitment().digest}) == len(changes) + 1


def test_it_never_overwrites_and_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "c.json").write_text("mine")
    with pytest.raises(UsageError, match="is there already and is not overwritten"):
        make_commitment().write(tmp_path / "c.json")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("c.json", "mine")]
    with pytest.raises(StoreError, match="cannot be written: No such file or directory"):
        make_commitment().write(tmp_path / "nowhere" / "c.json")


def test_without_hard_links_it_never_overwrites_either(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    make_commitment().write(tmp_path / "c.json")
    with pytest.raises(UsageError, match="is there already"):
        make_commitment(level=0.5).write(tmp_path / "c.json")
    assert [path.name for path in tmp_path.iterdir()] == ["c.json"]
    assert read_commitment(tmp_path / "c.json") == make_commitment()


def test_a_commitment_does_not_change() -> None:
    with pytest.raises(ValueError, match="frozen"):
        make_commitment().level = 0.5  # type: ignore[misc]


def test_a_key_is_committed_with_its_salt() -> None:
    salt = bytes(range(32))
    assert commit_key(salt, b"key") == hashlib.sha256(salt + b"key").hexdigest()
    commitment = make_commitment(key=commit_key(salt, b"key"))
    assert commitment.check_key(salt, b"key")
    assert not commitment.check_key(salt, b"kez")
    assert not commitment.check_key(bytes(32), b"key")
    for wrong in (b"", salt + b"k"):  # else a byte could move from the salt to the key
        with pytest.raises(UsageError, match="has 32 bytes"):
            commitment.check_key(wrong, b"key")


def test_files_are_compared_one_by_one(tmp_path: Path) -> None:
    commitment = read_commitment(make_protected(tmp_path / "p"))
    folder = tmp_path / "p" / "model"
    assert commitment.check_files(folder).passed
    (folder / "sub").mkdir()
    (folder / "sub" / "README.md").write_text("hello")
    check = commitment.check_files(folder)
    assert (check.passed, check.extra) == (True, ("sub/README.md",))
    (folder / "model.safetensors").write_bytes(b"marked weightz")
    (folder / "config.json").unlink()
    check = commitment.check_files(folder)
    assert (check.passed, check.equal, check.changed, check.missing) == (
        False,
        (),
        ("model.safetensors",),
        ("config.json",),
    )
    with pytest.raises(MissingError, match="does not exist"):
        commitment.check_files(tmp_path / "nowhere")


def test_a_commitment_to_no_files_passes_nothing(tmp_path: Path) -> None:
    assert not make_commitment(marked={"tensors": "d" * 64, "files": {}}).check_files(tmp_path).passed


def test_a_pipe_in_the_folder_is_not_waited_for(tmp_path: Path) -> None:
    subprocess.run(["mkfifo", str(tmp_path / "model.safetensors")], check=True)
    with pytest.raises(UsageError, match="pipe or a device"):
        make_commitment().check_files(tmp_path)
    with pytest.raises(UsageError, match="pipe or a device"):
        hash_files(tmp_path)


def test_a_key_folder_gives_back_what_was_kept(tmp_path: Path) -> None:
    salt = write_key_folder(tmp_path / "key", KEY)
    assert read_key_folder(tmp_path / "key", lambda: "never asked") == (salt, KEY)
    assert len(salt) == 32
    assert salt != write_key_folder(tmp_path / "other", KEY)
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "key").iterdir()} == {0o600}
    assert (tmp_path / "key").stat().st_mode & 0o777 == 0o700
    with pytest.raises(UsageError, match="is not overwritten"):
        write_key_folder(tmp_path / "key", KEY)
    assert read_key_folder(tmp_path / "key", lambda: "never asked") == (salt, KEY)


def test_a_folder_without_a_key_is_said(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="does not exist"):
        read_key_folder(tmp_path, lambda: "")
    (tmp_path / "salt").write_bytes(bytes(32))
    with pytest.raises(MissingError, match=r"neither key\.safetensors nor key\.sealed"):
        read_key_folder(tmp_path, lambda: "")


def test_now_is_a_time_that_it_takes() -> None:
    assert make_commitment(created=utc_now()).created == utc_now()


def test_nothing_that_is_shown_has_control_characters() -> None:
    assert all(text.isprintable() for pair in describe(make_commitment()) for text in pair)


SHOWN = json.loads(make_commitment().encode())


def changed(**changes: Any) -> bytes:
    return json.dumps({**SHOWN, **changes}).encode()


BAD = {
    "empty": b"",
    "zero bytes": bytes(100),
    "cut off": make_commitment().encode()[:-1],
    "list": b"[]",
    "null": b"null",
    "nested": b"[" * 200_000,
    "nested mapping": changed(software={"a": "b"}).replace(b'"b"', b'{"a":' * 5000 + b"1" + b"}" * 5000),
    "huge": changed(statistic="x" * (1 << 20)),
    "not utf-8": b'{"format": "\xff"}',
    "utf-16": make_commitment().encode().decode().encode("utf-16"),
    "byte order mark": b"\xef\xbb\xbf" + make_commitment().encode(),
    "twice": make_commitment().encode()[:-1] + b',"level":0.5}',
    "twice inside": make_commitment().encode().replace(b'"amb":"0.2.0"', b'"amb":"0.2.0","amb":"0.3.0"'),
    "nan": make_commitment().encode().replace(b"1e-06", b"NaN"),
    "infinity": make_commitment().encode().replace(b"1e-06", b"1e999"),
    "endless number": make_commitment().encode().replace(b"224", b"9" * 10_000),
    "format": changed(format="amb-commitment/2"),
    "unknown field": changed(secret="x"),
    "unknown field of control characters": changed(**{"\x1b[2J\n": "x"}),
    "missing field": json.dumps({name: value for name, value in SHOWN.items() if name != "key"}).encode(),
    "level as text": changed(level="0.5"),
    "level 0": changed(level=0),
    "level 1": changed(level=1),
    "level true": changed(level=True),
    "side": changed(side="less"),
    "short digest": changed(key="a" * 63),
    "long digest": changed(key="a" * 65),
    "digest and line break": changed(key="a" * 64 + "\n"),
    "upper case": changed(key="A" * 64),
    "claim": changed(claim="mine"),
    "day": changed(created="2026-11-27"),
    "no such day": changed(created="2026-02-30T00:00:00Z"),
    "short numbers": changed(created="2026-1-27T08:00:00Z"),
    "another zone": changed(created="2026-11-27T08:00:00+01:00"),
    "long time": changed(created="2026-11-27T08:00:00Z" * 1000),
    "control characters": changed(method="spread\x1b[2J"),
    "line break": changed(statistic="a\nsha256:0"),
    "right to left": changed(statistic="a\u202eb"),
    "half a character": changed(statistic="\ud800"),
    "empty text": changed(method=""),
    "software": changed(software={"amb": 2}),
    "much software": changed(software={str(n): "1" for n in range(1001)}),
    "image size": changed(preprocessing={"image_size": 0, "mean": [0], "std": [1]}),
    "image size 224.5": changed(preprocessing={"image_size": 224.5, "mean": [0], "std": [1]}),
    "no mean": changed(preprocessing={"image_size": 224, "mean": [], "std": [1]}),
    **{
        f"file {name!r}": changed(marked={"tensors": "d" * 64, "files": {name: "e" * 64}})
        for name in ("../x", "/etc/passwd", "a/../../x", "a//b", "", ".", "a\\b", "C:x", "a\nb", "x" * 501, "a\x00")
    },
    "many files": changed(marked={"tensors": "d" * 64, "files": {str(n): "e" * 64 for n in range(5001)}}),
}  # fmt: skip


@pytest.mark.parametrize("case", list(BAD))
def test_hostile_commitments_are_refused_in_one_line(case: str, tmp_path: Path) -> None:
    (tmp_path / "c.json").write_bytes(BAD[case])
    with pytest.raises(AmbError) as caught:
        read_commitment(tmp_path / "c.json")
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 500 + len(str(tmp_path))
    assert caught.value.exit_code == 2


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="does not exist"):
        read_commitment(tmp_path / "nowhere.json")
    with pytest.raises(UsageError, match="Is a directory"):
        read_commitment(tmp_path)
    with pytest.raises(UsageError, match="pipe or a device"):
        read_commitment(Path("/dev/zero"))
