"""`amb store`: listing, sizes, damage, what nobody needs, and copies, on a folder and on a real object store."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from amb.cli import main
from amb.runtime.processes import ProcessName
from amb.store import waste
from amb.store.copies import copy_entries
from amb.store.leases import Claim, Leases
from amb.store.listing import list_store
from amb.store.places import StoredFile
from amb.store.store import Store

OWNER, MODEL, KEY, OTHER = (letter * 64 for letter in "abcd")


def write(kind: str) -> Callable[[Path], dict[str, Any]]:
    def make(folder: Path) -> dict[str, Any]:
        (folder / "file.bin").write_bytes(kind.encode() * 1000)
        return {"embed": {"model": MODEL, "key": KEY}, "model": {"model": OTHER}}.get(kind, {"seconds": 1.0})

    return make


@pytest.fixture
def store(location: str) -> Store:
    found = Store(location)
    for kind, inputs in (
        ("embed", {"owner": OWNER}),
        ("model", {"source": MODEL}),
        ("evidence", {"model": MODEL, "key": KEY}),
        ("utility", {"model": OTHER}),
    ):
        found.get_or_make(kind, inputs, write(kind))
    return found


def ask(capsys: pytest.CaptureFixture[str], *args: str) -> tuple[int, Any, str]:
    capsys.readouterr()
    with pytest.raises(SystemExit) as left:
        main(["store", *args])
    out, err = capsys.readouterr()
    return int(left.value.code or 0), json.loads(out) if "json" in args else out, err


def find_file(store: Store, end: str) -> StoredFile:
    return next(file for file in store.place.list_files() if file.path.endswith(end))


def overwrite(store: Store, path: str, data: bytes) -> None:
    """Damage a file where it lies."""
    if "://" in store.location:
        import fsspec

        fsspec.filesystem("s3").pipe_file(f"{store.location}/{path}", data)
    else:
        (Path(store.location) / path).write_bytes(data)


def test_ls_and_du(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = ask(capsys, "ls", "--store", store.location)
    rows = [line.split("\t") for line in out.splitlines()]
    assert code == 0
    assert [row[0] for row in rows] == ["embed", "evidence", "model", "utility"]
    assert {row[2] for row in rows} == {"1"}
    _, rows, _ = ask(capsys, "ls", "--store", store.location, "--kind", "embed", "--format", "json")
    assert [row["kind"] for row in rows] == ["embed"]
    _, found, _ = ask(capsys, "du", "--store", store.location, "--format", "json")
    assert found["entries"] == 4
    assert found["kinds"]["embed"]["bytes"] == rows[0]["bytes"] > 5000
    assert found["bytes"] == sum(file.size for file in store.place.list_files())
    assert found["under_way_bytes"] == 0
    _, out, _ = ask(capsys, "du", "--store", store.location)
    assert "total                4" in out


def test_verify_names_what_is_damaged(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    assert ask(capsys, "verify", "--store", store.location)[0] == 0
    path = find_file(store, "file.bin").path
    overwrite(store, path, b"other")
    code, found, _ = ask(capsys, "verify", "--store", store.location, "--format", "json")
    assert code == 1
    assert found["entries"] == 4
    assert [each["why"] for each in found["damaged"]] == ["file.bin was changed"]
    assert path.startswith(f"{found['damaged'][0]['kind']}/{found['damaged'][0]['digest']}/")
    store.place.remove_file(path)
    assert ask(capsys, "verify", "--store", store.location)[0] == 1


def test_cp_goes_both_ways_and_copies_nothing_twice(
    store: Store, location: str, bucket: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = f"{bucket}/copy" if location.startswith("/") else str(tmp_path / "copy")
    _, first, _ = ask(capsys, "cp", location, target, "--kind", "embed", "--format", "json")
    assert (first["copied"], first["there"]) == (1, 0)
    _, second, _ = ask(capsys, "cp", location, target, "--format", "json")
    assert (second["copied"], second["there"]) == (3, 1)
    again = Store(target)
    assert again.get_or_make("embed", {"owner": OWNER}, pytest.fail).facts == {"model": MODEL, "key": KEY}
    for kind in store.place.list_kinds():
        for digest in store.place.list_digests(kind):
            assert again.place.read_text(kind, digest) == store.place.read_text(kind, digest), "the same, byte by byte"


def test_cp_leaves_out_what_is_damaged(store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    overwrite(store, find_file(store, "file.bin").path, b"other")
    if hasattr(store.place, "cache"):
        import shutil

        shutil.rmtree(store.place.cache.root)
    code, found, _ = ask(capsys, "cp", store.location, str(tmp_path / "copy"), "--format", "json")
    assert code == 1
    assert (found["copied"], len(found["damaged"])) == (3, 1)
    assert len(list((tmp_path / "copy").glob("*/*/record.json"))) == 3


def test_gc_removes_what_the_dead_left_and_nothing_of_the_living(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    others = Leases(store.place.slots, 3.0)
    living, dead = others.take("thing-1"), Claim(ProcessName("elsewhere", 1, "", "far"), "tag", 0.2)
    assert living
    assert store.place.slots.create("thing-2", 1, dead.to_text())
    overwrite(
        store, f"model/{'0' * 32}/file.bin" if "://" in store.location else "stray.bin", b"an upload that broke off"
    )
    before = [file.path for file in store.place.list_files()]
    _, found, _ = ask(capsys, "gc", "--store", store.location, "--format", "json")
    assert not found["removed"]
    assert len(found["files"]) == 2
    assert found["entries"] == []
    assert set(found["files"]) <= {file.path for file in store.place.list_files()}, "it was only said"
    ask(capsys, "gc", "--store", store.location, "--yes")
    left = {file.path for file in store.place.list_files()}
    assert set(before) - left - set(found["files"]) <= {path for path in before if "thing-1" in path}
    assert not set(found["files"]) & left
    assert living.is_held()
    assert store.leases.slots.numbers("thing-2") == []
    assert store.leases.slots.numbers("thing-1") != []


def test_gc_spares_what_is_being_copied(store: Store, tmp_path: Path) -> None:
    target, seen = Store(tmp_path / "copy", lease_seconds=1.0), list[list[StoredFile]]()
    publish = target.place.publish

    def look_before_publishing(kind: str, digest: str, draft: Path, record: bytes) -> Any:
        seen.append(waste.find_waste(Store(target.location), None).files)
        return publish(kind, digest, draft, record)

    target.place.publish = look_before_publishing  # type: ignore[method-assign]
    outcomes = [came for _, came in copy_entries(store, target, list_store(store).entries)]
    assert outcomes == ["copied"] * 4
    assert seen == [[]] * 4


def test_gc_spares_a_step_that_begins_while_it_lists(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """On an object store: its lease is taken after the leases were listed, its files are there before the entries are."""
    store, other = Store(bucket), Store(bucket)
    listed, lease = list_store(store), other.leases.take(f"model-{MODEL[:32]}")
    assert lease
    upload = StoredFile(f"model/{MODEL[:32]}/file.bin", 9, 0.0)
    monkeypatch.setattr(waste, "list_store", lambda _: replace(listed, files={("model", MODEL[:32]): [upload]}))
    assert waste.find_waste(store, None).files == []
    lease.release()
    assert waste.find_waste(store, None).files == [upload]


def test_what_results_refer_to_is_kept(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """By what came of a step, by its address, and whatever leads to it; a day's grace for runs that go on."""
    evidence = next(iter(store.place.list_digests("evidence")))
    assert waste.find_waste(store, set()).entries == [], "all of it is of today"
    monkeypatch.setattr(waste, "GRACE", -60.0)

    def unreferred(*digests: str) -> set[str]:
        return {entry.kind for entry in waste.find_waste(store, set(digests)).entries}

    assert unreferred() == {"embed", "model", "evidence", "utility"}
    assert unreferred(evidence) == {"model", "utility"}, "the embedding made its key"
    assert unreferred(OTHER) == {"evidence"}, "the attacked model, what it was made of, and its utility"
    waste.remove_waste(store, waste.find_waste(store, {OTHER}))
    assert store.place.list_digests("evidence") == frozenset()
    assert store.open_entry("evidence", evidence) is None


def test_a_folder_without_a_store_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = ask(capsys, "ls", "--output-dir", str(tmp_path))
    assert code == 3
    assert err.startswith("amb: There is no store in")


def test_the_cache_is_found_and_emptied(bucket: str, capsys: pytest.CaptureFixture[str]) -> None:
    store = Store(bucket)
    store.get_or_make("embed", {"owner": OWNER}, write("embed"))
    _, found, _ = ask(capsys, "du", "--store", bucket, "--format", "json")
    assert found["cache_bytes"] == found["bytes"] > 5000
    ask(capsys, "gc", "--store", bucket, "--cache", "--yes")
    assert not Path(os.environ["AMB_STORE_CACHE"], store.place.cache.root.name).exists()
    assert Store(bucket).get_or_make("embed", {"owner": OWNER}, pytest.fail).cached, "it is read again"


def test_a_url_that_is_none(capsys: pytest.CaptureFixture[str]) -> None:
    for url, code, words in (
        ("nosuch://a/b", 2, "cannot be opened"),
        ("s3://", 2, "names no bucket"),
        ("gs://bucket/a", 3, "needs the package gcsfs"),
    ):
        found, _, err = ask(capsys, "ls", "--store", url)
        assert (found, words in err, err.count("\n")) == (code, True, 1), err
