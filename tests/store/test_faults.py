"""The store when things go wrong, as they do: with real processes, a real server and real disks that are full."""

from __future__ import annotations

import os
import random
import resource
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from amb.errors import StoreError
from amb.store.entries import find_address
from amb.store.store import Store
from tests.store.driver import FILES, KIND, content_of
from tests.store.servers import Ceph, Moto, start_careless_server

ROOT = Path(__file__).parents[2]


def start(location: str, log: Path, *options: str, cache: str = "cache") -> subprocess.Popen[str]:
    """A driver in a process of its own; each cache stands for a machine."""
    path = os.pathsep.join([str(ROOT), str(ROOT / "plugins"), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path, "AMB_STORE_CACHE": str(log.parent / cache)}
    command = [sys.executable, "-m", "tests.store.driver", location, str(log), *options]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def end(process: subprocess.Popen[str], seconds: float = 180) -> tuple[int, str]:
    out, _ = process.communicate(timeout=seconds)
    return process.returncode, out


def wait_until(true: Callable[[], bool], seconds: float = 60) -> None:
    limit = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < limit
        time.sleep(0.02)


def computed(log: Path) -> list[int]:
    """Which steps were computed, in the order in which that began."""
    return [int(line.split()[0]) for line in log.read_text().splitlines()] if log.exists() else []


def find_whole(location: str, steps: int) -> set[int]:
    """The steps that are there, every file of them compared with what it should be."""
    said: list[str] = []
    store, found = Store(location, said.append), set()
    for step in range(steps):
        entry = store.open_entry(KIND, find_address(KIND, {"step": step}))
        if entry:
            assert entry.facts["step"] == step
            for file in range(FILES):
                path = entry.folder / f"{file}.bin"
                assert path.read_bytes() == content_of(step, file, path.stat().st_size)
            found.add(step)
    assert said == [], "nothing that was there was damaged"
    return found


def test_two_drivers_compute_every_step_once(location: str, tmp_path: Path) -> None:
    log = tmp_path / "log"
    drivers = [start(location, log, "--steps", "50", cache=f"cache{at}") for at in range(2)]
    for driver in drivers:
        code, out = end(driver)
        assert code == 0, out
        assert out.count("step ") == 50
    assert Counter(computed(log)) == Counter(range(50))
    assert find_whole(location, 50) == set(range(50))


def test_a_killed_driver_leaves_no_part_of_an_entry(location: str, tmp_path: Path) -> None:
    """Kills at random moments: what was finished stays and is not made again, what was not is not read."""
    log, chance = tmp_path / "log", random.Random(7)
    steps, finished = 100, set[int]()
    for _ in range(20 if location.startswith("/") else 6):
        before = len(computed(log))
        driver = start(location, log, "--steps", str(steps), "--seconds", "0.03", "--size", "300000")
        wait_until(lambda before=before: len(computed(log)) > before)
        time.sleep(chance.uniform(0, 0.4))
        driver.send_signal(signal.SIGKILL)
        end(driver)
        again = set(computed(log)[before:])
        assert not again & finished, "what was finished was made again"
        now = find_whole(location, steps)
        assert finished <= now
        finished = now
    began = time.monotonic()
    code, out = end(start(location, log, "--steps", str(steps)))
    assert code == 0, out
    assert time.monotonic() - began < 45, "the lease of a killed process of this machine is not waited for"
    assert find_whole(location, steps) == set(range(steps))


def test_a_frozen_holder_that_wakes_up_takes_the_others_result(location: str, tmp_path: Path) -> None:
    log = tmp_path / "log"
    options = ("--steps", "1", "--seconds", "1.5", "--lease", "2")
    frozen = start(location, log, *options, cache="frozen")
    wait_until(lambda: len(computed(log)) == 1)
    frozen.send_signal(signal.SIGSTOP)
    other = start(location, log, *options, cache="other")
    code, out = end(other)
    assert code == 0, out
    assert out.splitlines()[-1] == f"step 0 by {other.pid}"
    frozen.send_signal(signal.SIGCONT)
    code, out = end(frozen)
    assert code == 0, out
    assert "another took it over: taking its result" in out
    assert out.splitlines()[-1] == f"step 0 by {other.pid}", "the entry stayed the other's"
    assert find_whole(location, 1) == {0}
    assert len(computed(log)) == 2


def test_a_frozen_holder_that_wakes_up_while_the_other_computes_waits_for_it(location: str, tmp_path: Path) -> None:
    log = tmp_path / "log"
    frozen = start(location, log, "--steps", "1", "--seconds", "0.6", "--lease", "1", cache="frozen")
    wait_until(lambda: len(computed(log)) == 1)
    frozen.send_signal(signal.SIGSTOP)
    other = start(location, log, "--steps", "1", "--seconds", "6", "--lease", "1", cache="other")
    wait_until(lambda: len(computed(log)) == 2)
    frozen.send_signal(signal.SIGCONT)
    for driver in (frozen, other):
        code, out = end(driver)
        assert code == 0, out
        assert out.splitlines()[-1] == f"step 0 by {other.pid}"
    assert find_whole(location, 1) == {0}
    assert len(computed(log)) == 2, "the frozen one did not compute again"


def test_a_server_that_goes_away_in_an_upload_and_comes_back(bucket: str, server: Ceph | Moto, tmp_path: Path) -> None:
    if isinstance(server, Moto):
        pytest.skip("moto forgets everything when it stops")
    log = tmp_path / "log"
    driver = start(bucket, log, "--steps", "3", "--size", "60000000")
    wait_until(lambda: len(computed(log)) == 2)
    time.sleep(0.4)
    server.kill_gateway()
    assert driver.stdout
    while "does not answer" not in (line := driver.stdout.readline()):
        assert line, "the driver noticed nothing"
    server.start_gateway()
    code, out = end(driver)
    assert code == 0, out
    assert computed(log) == [0, 1, 2], "what was being uploaded was not computed again"
    assert find_whole(bucket, 3) == {0, 1, 2}


def test_a_server_that_stays_away_is_one_line(
    bucket: str, server: Ceph | Moto, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("amb.store.patience.SECONDS", 1.0)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    import fsspec

    fsspec.filesystem("s3").clear_instance_cache()
    with pytest.raises(
        StoreError, match="does not answer .* and give the same command again; what is finished stays"
    ) as caught:
        Store(bucket).get_or_make(KIND, {"step": 0}, lambda _: {})
    assert "\n" not in str(caught.value)


def test_a_server_that_heeds_no_conditions_is_refused(
    tmp_path: Path, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fsspec

    with start_careless_server() as environment:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        fsspec.filesystem("s3").clear_instance_cache()
        with pytest.raises(
            StoreError, match="lets a file be created 5 times .* Give another location: --store"
        ) as caught:
            Store("s3://amb-tests/careless").get_or_make(KIND, {"step": 0}, pytest.fail)
        assert "\n" not in str(caught.value)


def test_rights_that_lack_are_one_line(bucket: str, server: Ceph | Moto, monkeypatch: pytest.MonkeyPatch) -> None:
    import fsspec

    if isinstance(server, Moto):
        pytest.skip("moto lets everybody in")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    fsspec.filesystem("s3").clear_instance_cache()
    began = time.monotonic()
    with pytest.raises(StoreError, match="refuses .* Look at the address and the rights"):
        Store(bucket).get_or_make(KIND, {"step": 0}, pytest.fail)
    assert time.monotonic() - began < 10, "asking again is of no use"


def test_a_bucket_that_is_not_there_is_one_line(bucket: str) -> None:
    with pytest.raises(StoreError, match="cannot be written: .*(bucket does not exist|NoSuchBucket)"):
        Store("s3://amb-no-such-bucket/a").get_or_make(KIND, {"step": 0}, pytest.fail)


@contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """A disk of one megabyte."""
    folder.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], check=False, capture_output=True
    ).returncode:
        pytest.skip("only root may mount")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_keeps_what_is_finished(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk") as disk:
        log = tmp_path / "log"
        code, out = end(start(str(disk / "store"), log, "--steps", "20", "--size", "50000"))
        *done, last = out.splitlines()
        assert code == 1
        assert last == (
            f"amb: The store {disk}/store cannot be written: No space left on device. Free space, or give another --store "
            "or --output-dir; what is finished stays."
        )
        assert find_whole(f"{disk}/store", 20) == set(range(len(done)))
        assert len(done) > 3
        assert not list((disk / "store" / ".work").iterdir()), "what was half-written is gone"


def test_a_full_disk_beside_an_object_store_keeps_what_is_finished(bucket: str, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk"):
        code, out = end(start(bucket, tmp_path / "log", "--steps", "20", "--size", "50000", cache="disk"))
        *done, last = out.splitlines()
        assert code == 1
        assert "No space left on device" in last
    assert find_whole(bucket, 20) == set(range(len(done)))
    assert len(done) > 3


def test_a_quota_is_one_line_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A limit on the size of files, which every account may set."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))
    try:
        driver = start(str(tmp_path / "store"), tmp_path / "log", "--steps", "1")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    code, out = end(driver)
    assert code == 1
    assert "cannot be written: File too large" in out
    assert "\n" not in out.strip()


def test_a_library_that_reports_a_full_disk_in_its_own_words(tmp_path: Path) -> None:
    def fail(_: Path) -> dict[str, int]:
        raise RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)")

    with pytest.raises(StoreError, match=r"cannot be written: No space left on device\."):
        Store(tmp_path).get_or_make(KIND, {}, fail)


@pytest.fixture
def readonly(tmp_path: Path) -> Iterator[Path]:
    """A folder with one entry on a disk that may not be written."""
    disk = tmp_path / "disk"
    with small_disk(disk):
        assert end(start(str(disk), tmp_path / "log", "--steps", "1"))[0] == 0
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        yield disk


def test_a_read_only_store_is_read_and_not_written(readonly: Path, tmp_path: Path) -> None:
    code, out = end(start(str(readonly), tmp_path / "log", "--steps", "2"))
    assert code == 1
    first, last = out.splitlines()
    assert first.startswith("step 0 by")
    assert f"The store {readonly} cannot be written: Read-only file system." in last
    assert computed(tmp_path / "log") == [0], "nothing was computed that could not be kept"


def test_a_clock_set_back_is_the_servers_word(
    bucket: str, server: Ceph | Moto, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Requests are signed with the time of day: a server refuses them, in one line, and nothing is written."""
    import datetime as dt

    import botocore.auth
    import fsspec

    if isinstance(server, Moto):
        pytest.skip("moto looks at no signature")
    fsspec.filesystem("s3").clear_instance_cache()
    past = dt.datetime.now(dt.UTC) - dt.timedelta(days=2)
    monkeypatch.setattr(botocore.auth, "get_current_datetime", lambda **_: past.replace(tzinfo=None))
    with pytest.raises(StoreError, match="refuses .*") as caught:
        Store(bucket).get_or_make(KIND, {"step": 0}, pytest.fail)
    assert "\n" not in str(caught.value)
