"""The store: finished work is found again, damage is noticed, nothing half-written stays."""

from __future__ import annotations

import json
import multiprocessing
import time
from dataclasses import replace
from pathlib import Path

import pytest

from amb.errors import BadParamsError, StoreError
from amb.runtime.processes import name_this_process
from amb.runtime.writable import check_writable
from amb.store.entries import StoreEntry
from amb.store.lookup import Lookup, NotStored
from amb.store.store import Store


def write_number(folder: Path) -> dict[str, int]:
    (folder / "number.txt").write_text("7")
    return {"number": 7}


def get(store: Store) -> StoreEntry:
    return store.get_or_make("thing", {"a": 1}, write_number)


def test_the_second_time_is_cached(tmp_path: Path) -> None:
    store = Store(tmp_path)
    first, second = get(store), get(store)
    assert (first.cached, second.cached) == (False, True)
    assert second.facts == {"number": 7}
    assert (second.folder / "number.txt").read_text() == "7"


def test_a_lookup_finds_what_is_there_and_touches_nothing(tmp_path: Path) -> None:
    with pytest.raises(NotStored):
        get(Lookup(tmp_path / "nowhere"))
    assert not (tmp_path / "nowhere").exists()
    made = get(Store(tmp_path))
    assert get(Lookup(tmp_path)).facts == {"number": 7}
    (made.folder / "record.json").write_text("{}")
    with pytest.raises(NotStored):
        get(Lookup(tmp_path))
    assert (made.folder / "record.json").read_text() == "{}", "a damaged entry is left for the store to deal with"


def test_other_inputs_are_another_entry(tmp_path: Path) -> None:
    store = Store(tmp_path)
    assert get(store).digest != store.get_or_make("thing", {"a": 2}, write_number).digest


@pytest.mark.parametrize("name", ["number.txt", "record.json"])
@pytest.mark.parametrize("damage", ["change", "truncate", "remove"])
def test_a_damaged_entry_is_said_and_made_again(tmp_path: Path, name: str, damage: str) -> None:
    said: list[str] = []
    store = Store(tmp_path, said.append)
    path = get(store).folder / name
    if damage == "change":
        path.write_text(path.read_text().replace("7", "8"))
    elif damage == "truncate":
        path.write_text("")
    else:
        path.unlink()
    again = get(store)
    assert not again.cached
    assert len(said) == 1
    assert "damaged" in said[0]
    assert get(store).cached


def test_a_failure_leaves_no_trace(tmp_path: Path) -> None:
    def fail(folder: Path) -> dict[str, int]:
        (folder / "half.txt").write_text("half")
        raise KeyboardInterrupt

    store = Store(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        store.get_or_make("thing", {"a": 1}, fail)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    assert not get(store).cached


def test_a_full_disk_is_explained(tmp_path: Path) -> None:
    def full(_: Path) -> dict[str, int]:
        raise OSError(28, "No space left on device")

    with pytest.raises(StoreError, match="No space left on device"):
        Store(tmp_path).get_or_make("thing", {"a": 1}, full)


def test_what_a_killed_process_left_is_cleared_away(tmp_path: Path) -> None:
    store, other = Store(tmp_path), Store(tmp_path)
    digest = get(store).digest
    store.place.remove("thing", digest)
    lease = other.leases.take(f"thing-{digest}")
    draft = other.place.open_draft("thing", digest, lease.tag)
    (draft / "half.txt").write_text("half")
    lease.claim = replace(lease.claim, holder=replace(name_this_process(), started="before"))
    lease.renew()  # it says now that a process wrote it whose number somebody else has by now
    entry = get(store)
    assert not entry.cached
    assert sorted(path.name for path in entry.folder.iterdir()) == ["number.txt", "record.json"]
    assert list((tmp_path / ".work").iterdir()) == []


def _compute_slowly(root: Path, log: Path) -> None:
    def make(folder: Path) -> dict[str, int]:
        with log.open("a") as file:
            file.write("made\n")
        time.sleep(0.5)
        return write_number(folder)

    Store(root).get_or_make("thing", {"a": 1}, make)


def test_two_processes_compute_an_entry_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    log = tmp_path / "log"
    jobs = [context.Process(target=_compute_slowly, args=(tmp_path / "store", log)) for _ in range(3)]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join()
    assert log.read_text() == "made\n"


def test_records_say_what_made_them(tmp_path: Path) -> None:
    record = json.loads((get(Store(tmp_path)).folder / "record.json").read_text())
    assert record["inputs"] == {"a": 1}
    assert record["schema"] == 1


def test_an_output_folder_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BadParamsError, match="is a file"):
        check_writable(tmp_path / "file" / "results")
    check_writable(tmp_path / "new" / "folder")
    assert not (tmp_path / "new").exists()
