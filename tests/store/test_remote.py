"""Entries on an object store: what is published once, checked, fetched, kept on this machine, and never mixed."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import pytest

from amb.errors import StoreError
from amb.store.entries import digest_files, write_record
from amb.store.lookup import Lookup, NotStored
from amb.store.remote import RemotePlace
from amb.store.store import Store, open_store

INPUTS = {"a": 1}


def writer(text: str) -> Callable[[Path], dict[str, Any]]:
    def make(folder: Path) -> dict[str, Any]:
        (folder / "text.txt").write_text(text)
        (folder / "same.txt").write_text("the same")
        return {"text": text}

    return make


def get(store: Store, text: str = "first") -> Any:
    return store.get_or_make("thing", INPUTS, writer(text))


def forget(store: Store) -> Store:
    """The same store on another machine, which has read nothing."""
    assert isinstance(store.place, RemotePlace)
    shutil.rmtree(store.place.cache.root)
    return open_store(store.location)


def lies(store: Store) -> list[str]:
    return sorted(file.path for file in store.place.list_files())


def test_another_machine_reads_what_one_has_made(bucket: str) -> None:
    store = Store(bucket)
    made = get(store)
    assert not made.cached
    other = forget(store)
    read = other.open_entry("thing", made.digest)
    assert read
    assert read.cached
    assert read.facts == {"text": "first"}
    assert (read.folder / "text.txt").read_text() == "first"
    assert {path.stat().st_mode & 0o777 for path in read.folder.glob("*.txt")} == {0o600}, "keys may be among them"
    assert other.place.cache.root.stat().st_mode & 0o777 == 0o700
    assert other.open_entry("thing", "0" * 32) is None
    assert [path for path in lies(store) if path.startswith(".work")] == [], "no lease is left"


def test_what_was_fetched_is_not_fetched_again(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    get(Store(bucket))
    monkeypatch.setattr("amb.store.remote.Bucket.download", lambda *_: pytest.fail("it is here"))
    assert get(Store(bucket)).cached


def test_a_copy_that_was_damaged_here_is_fetched_again(bucket: str) -> None:
    said: list[str] = []
    path = get(Store(bucket)).folder / "text.txt"
    path.write_text("changed")
    assert get(Store(bucket, said.append)).cached
    assert path.read_text() == "first"
    assert said == [], "the store itself is whole"


@pytest.mark.parametrize("name", ["text.txt", "record.json"])
@pytest.mark.parametrize("damage", ["change", "truncate", "remove"])
def test_an_entry_that_was_damaged_there_is_said_and_made_again(bucket: str, name: str, damage: str) -> None:
    store, said = Store(bucket), list[str]()
    get(store)
    files, path = fsspec.filesystem("s3"), next(path for path in lies(store) if path.endswith(name))
    if damage == "remove":
        files.rm_file(f"{bucket}/{path}")
    else:
        data = files.cat_file(f"{bucket}/{path}").replace(b"first", b"other") if damage == "change" else b""
        files.pipe_file(f"{bucket}/{path}", data)
    forget(store)
    fresh = Store(bucket, said.append)
    entry = get(fresh)
    assert not entry.cached
    gone = (damage, name) == ("remove", "record.json")  # then there is no entry at all
    assert [("damaged" in line) for line in said] == ([] if gone else [True])
    assert get(forget(fresh)).cached


def test_the_second_writer_of_an_entry_changes_nothing(bucket: str, tmp_path: Path) -> None:
    """Both believe that they hold the lease; one record is created, and its files are its writer's."""
    store = Store(bucket)
    first = get(store, "first")
    draft = store.place.open_draft("thing", first.digest, "second")
    facts = writer("second")(draft)
    before = store.place.read_text("thing", first.digest)
    assert store.place.publish("thing", first.digest, draft, write_record(INPUTS, facts, digest_files(draft))) is None
    assert store.place.read_text("thing", first.digest) == before
    assert (get(forget(store)).folder / "text.txt").read_text() == "first"
    store.place.check("thing", first.digest)


def test_a_record_whose_answer_was_lost_is_ones_own(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(bucket)
    assert isinstance(store.place, RemotePlace)
    files = store.place._bucket._files
    real, calls = files.pipe_file, list[str]()

    def lose_the_answer(path: str, data: bytes, **options: Any) -> None:
        real(path, data, **options)
        calls.append(path)
        if path.endswith("record.json"):
            monkeypatch.setattr(files, "pipe_file", real)
            raise TimeoutError("the answer was lost")

    store.place.slots.create("warm-up", 1, b"")
    monkeypatch.setattr(files, "pipe_file", lose_the_answer)
    assert not get(store).cached, "it was asked again, found its own record, and did not compute twice"
    assert calls[-1].endswith("record.json")


def test_a_failure_leaves_nothing_there(bucket: str) -> None:
    def fail(folder: Path) -> dict[str, int]:
        (folder / "half.txt").write_text("half")
        raise KeyboardInterrupt

    store = Store(bucket)
    with pytest.raises(KeyboardInterrupt):
        store.get_or_make("thing", INPUTS, fail)
    assert lies(store) == []
    assert list((store.place.cache.root / ".work").iterdir()) == []


def test_a_lookup_reads_records_alone(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(NotStored):
        get(Lookup(bucket))
    assert Lookup(bucket).is_empty()
    store = Store(bucket)
    get(store)
    forget(store)
    monkeypatch.setattr("amb.store.remote.Bucket.download", lambda *_: pytest.fail("nothing is fetched"))
    assert get(Lookup(bucket)).facts == {"text": "first"}
    assert not Lookup(bucket).is_empty()


def test_drafts_of_killed_processes_are_cleared_from_the_cache(bucket: str) -> None:
    store = Store(bucket)
    mine = store.place.open_draft("thing", "0" * 32, f"{2**22 - 1}-{new_machine()}-0")
    others = store.place.open_draft("thing", "0" * 32, f"{2**22 - 1}-ffffffff-0")
    Store(bucket)
    assert not mine.exists()
    assert others.exists(), "another machine's, whose home is shared"


def new_machine() -> str:
    from amb.store.drafts import new_tag

    return new_tag().split("-")[1]


def test_a_cache_that_cannot_be_made_is_one_line(bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("AMB_STORE_CACHE", str(tmp_path / "file"))
    with pytest.raises(StoreError, match="Set AMB_STORE_CACHE"):
        Store(bucket)
