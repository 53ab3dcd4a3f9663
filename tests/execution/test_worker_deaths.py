"""Worker processes killed at random moments: the results are the serial ones, digest by digest, and no orphan is left."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import amb
from amb.plugin import manager as plugins
from tests.command import heed_interrupts
from tests.execution.toy_sweep import SWEEP, install, n_finished, summarise, wait_for


@pytest.fixture(scope="module")
def serial(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What one process finds."""
    with pytest.MonkeyPatch.context() as patch:
        install(tmp_path_factory.mktemp("site"), patch)
        return amb.sweep(SWEEP, output_dir=tmp_path_factory.mktemp("serial"), device="cpu", quiet=True)


@pytest.fixture(autouse=True)
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    folder = tmp_path / "site"
    folder.mkdir()
    install(folder, monkeypatch)
    yield
    plugins.manager.cache_clear()


def list_children(of: int) -> list[int]:
    """The worker processes of a process; multiprocessing's resource tracker is none."""
    found = Path(f"/proc/{of}/task/{of}/children").read_text().split()
    return [int(each) for each in found if b"spawn_main" in Path(f"/proc/{each}/cmdline").read_bytes()]


def is_running(process: int) -> bool:
    status = Path(f"/proc/{process}/stat")
    try:
        return status.read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_workers_killed_at_random_moments_change_no_result(serial: Any, tmp_path: Path) -> None:
    drawn, over, killed = random.Random(7), threading.Event(), list[int]()

    def kill_now_and_then() -> None:
        while not over.wait(drawn.uniform(0.5, 3.0)):
            workers = list_children(os.getpid())
            if workers and len(killed) < 6:
                killed.append(drawn.choice(workers))
                os.kill(killed[-1], signal.SIGKILL)

    thread = threading.Thread(target=kill_now_and_then)
    thread.start()
    try:
        found = amb.sweep(SWEEP, jobs=2, retries=10, output_dir=tmp_path / "out", device="cpu", quiet=True)
    finally:
        over.set()
        thread.join()
    assert killed
    assert summarise(found.document) == summarise(serial.document)
    assert {cell["status"] for cell in found.document["cells"]} <= {"ok", "skipped"}
    wait_for(lambda: not any(is_running(each) for each in list_children(os.getpid())))


def test_ctrl_c_leaves_what_is_finished_and_no_orphans(serial: Any, tmp_path: Path) -> None:
    Path("s.yaml").write_text(str(SWEEP))
    command = [sys.executable, "-m", "amb", "sweep", "s.yaml", "--executor", "processes:workers=2", "--device", "cpu"]
    options: dict[str, Any] = {"stderr": subprocess.PIPE, "text": True, "preexec_fn": heed_interrupts}
    process = subprocess.Popen([*command, "--output-dir", "out"], **options)
    wait_for(lambda: n_finished(tmp_path / "out") >= 3)
    workers = list_children(process.pid)
    assert len(workers) == 2
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "stopped. What is finished is in the store" in said
    assert "Traceback" not in said
    wait_for(lambda: not any(is_running(each) for each in workers), seconds=20)
    n_before = n_finished(tmp_path / "out")
    again = amb.sweep(SWEEP, output_dir=tmp_path / "out", device="cpu", quiet=True)
    assert sum(cell["cached"] for cell in again.document["cells"]) >= n_before - 2, (
        "evidence on innocents is of no cell"
    )
    assert summarise(again.document) == summarise(serial.document)


def test_a_step_that_takes_too_long_costs_its_cell_only(serial: Any, tmp_path: Path) -> None:
    shutil.copytree(serial.folder, tmp_path / "out")  # so that nothing else has to be computed
    asked = {**SWEEP, "attacks": [*SWEEP["attacks"], "slow:seconds=3600"], "methods": "toy:n=8", "seeds": 0}
    found = amb.sweep(asked, jobs=2, step_timeout=20.0, output_dir=tmp_path / "out", device="cpu", quiet=True)
    failed = {cell["suspect"]: cell["reason"] for cell in found.document["cells"] if cell["status"] == "failed"}
    assert failed == {
        "slow:seconds=3600": "toy on slow:seconds=3600: stopped after 20 s, the most that a step may take (--step-timeout)"
    }
