"""Long sweeps as users run them: looked at, stopped, detached, killed and gone on with, in real processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from amb.cli import cli, stop_command
from amb.results import driver as driver_module
from amb.results.lines import read_lines
from amb.results.status import (
    GONE_SECONDS,
    SweepStatus,
    find_running,
    read_request,
    read_statuses,
    request_stop,
    write_status,
)
from amb.runtime.processes import ProcessName, name_this_process
from tests.installed import install_plugin
from tests.store.test_faults import small_disk

ROOT = Path(__file__).parents[2]
QUICK = "suites: scale\nmethods: noop\nattacks:\n- touch: {a: [1, 2, 3]}\n"
SLOW = "suites: scale\nmethods: noop\nattacks:\n- burn: {a: [1, 2, 3, 4], seconds: 1.5}\n"
LONG = "suites: scale\nmethods: noop\nattacks:\n- burn: {seconds: 100}\n"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The plugin of benchmarks/speed/scale, installed."""
    folder = tmp_path_factory.mktemp("site")
    install_plugin(folder, "amb-scale", {"scale": "synthetic"})
    return folder


@pytest.fixture
def amb(site: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts `amb ...`; what is still there at the end is killed."""
    path = os.pathsep.join(map(str, [site, ROOT / "benchmarks/speed/scale", ROOT, ROOT / "plugins"]))
    environment = {**os.environ, "PYTHONPATH": path, "AMB_DISABLE_PLUGINS": "mlflow", "OMP_NUM_THREADS": "1"}
    started = []

    def start(*words: str) -> subprocess.Popen[str]:
        options: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        command = [sys.executable, "-m", "amb", *words]
        started.append(subprocess.Popen(command, env=environment, text=True, **options))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def run(amb: Callable[..., subprocess.Popen[str]], *words: str) -> tuple[int, str, str]:
    process = amb(*words)
    out, err = process.communicate(timeout=300)
    return process.returncode, out, err


def wait_for(asked: Callable[[], Any], seconds: float = 300) -> Any:
    until = time.monotonic() + seconds
    while not (found := asked()):
        assert time.monotonic() < until, "it did not happen"
        time.sleep(0.1)
    return found


def status(output: str = "out") -> SweepStatus:
    return read_statuses(Path(output))[-1]


def n_done(output: str = "out") -> int:
    found = read_statuses(Path(output))
    return found[-1].done if found else 0


def n_runs(output: str = "out") -> int:
    return len(list(Path(output, "runs").iterdir()))


def test_another_shell_sees_how_far_it_is_and_that_its_driver_was_killed(amb: Any) -> None:
    Path("s.yaml").write_text(SLOW)
    process = amb("sweep", "s.yaml", "--output-dir", "out")
    wait_for(lambda: n_done() >= 2)

    code, out, _ = run(amb, "status", "--output-dir", "out", "--format", "json")
    (said,) = json.loads(out)["sweeps"]
    assert code == 0
    assert (said["sweep"], said["state"], said["gone"], said["cells"]) == ("s", "running", False, 6)
    assert said["done"] + said["left"] == 6
    assert said["running"] == 1
    assert said["pid"] == process.pid
    assert said["at"].startswith("noop on ")

    process.send_signal(signal.SIGKILL)
    process.communicate()
    code, out, _ = run(amb, "status", "--output-dir", "out")
    assert code == 1
    assert f"its driver, process {process.pid} on" in out
    assert "is gone; the same `amb sweep` goes on from there" in out
    assert run(amb, "stop", "--output-dir", "out")[0] == 3, "nobody is there to be stopped"

    code, _, err = run(amb, "sweep", "s.yaml", "--output-dir", "out")
    assert code == 0, err
    code, out, _ = run(amb, "status", "--output-dir", "out", "--watch")
    assert code == 0
    assert "sweep s: finished" in out
    assert "6 cells: 6 done" in out
    assert "0 left" in out
    assert len(read_statuses(Path("out"))) == 1, "what the killed driver left is cleared away"


def test_a_stopped_sweep_finishes_its_cell_and_goes_on_later(amb: Any) -> None:
    Path("s.yaml").write_text(SLOW)
    process = amb("sweep", "s.yaml", "--output-dir", "out")
    wait_for(lambda: n_done() >= 2)
    code, out, _ = run(amb, "stop", "--output-dir", "out", "--sweep", "s")
    assert code == 0, out
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "asked to stop: what is being computed is finished" in err
    assert status().state == "stopped"
    assert 2 <= status().done < 6
    assert run(amb, "status", "--output-dir", "out")[0] == 1

    before = len(list(Path("out/store/evidence").iterdir()))
    assert before == status().done, "each cell that was begun was finished and recorded"
    code, _, err = run(amb, "sweep", "s.yaml", "--output-dir", "out")
    assert code == 0, err
    assert status().state == "finished"
    assert status().cached == before


def test_workers_finish_their_cells_too(amb: Any) -> None:
    Path("s.yaml").write_text(SLOW.replace("1.5", "3"))
    process = amb("sweep", "s.yaml", "--output-dir", "out", "--jobs", "2")
    wait_for(lambda: len(list(Path("out/store").glob("evidence/*/record.json"))) >= 2)  # what is left are attacks
    assert run(amb, "stop", "--output-dir", "out")[0] == 0
    process.communicate(timeout=120)
    assert process.returncode == 130
    assert not list(Path("out/store").rglob("*draft*")), "none was killed at its work"
    assert status().state == "stopped"


def test_stop_now_interrupts_what_is_computed(amb: Any) -> None:
    Path("s.yaml").write_text(LONG)
    process = amb("sweep", "s.yaml", "--output-dir", "out")
    wait_for(lambda: n_done() >= 2)
    began = time.monotonic()
    code, out, _ = run(amb, "stop", "--output-dir", "out", "--now")
    assert code == 0, out
    assert "over" in out
    process.communicate(timeout=60)
    assert process.returncode == 130
    assert time.monotonic() - began < 60
    assert status().state == "stopped"


def test_a_detached_sweep_outlives_its_shell_and_a_second_one_is_refused(amb: Any) -> None:
    Path("s.yaml").write_text(SLOW)
    code, out, err = run(amb, "sweep", "s.yaml", "--output-dir", "out", "--detach")
    assert code == 0, err
    assert "look: amb status --output-dir out --watch" in out
    assert "stop: amb stop --output-dir out --sweep s" in out
    driver = status().process
    assert os.getsid(driver.process) == driver.process, "a session of its own"

    code, _, err = run(amb, "sweep", "s.yaml", "--output-dir", "out", "--detach")
    assert code == 2
    assert f"The sweep s goes on in out already: process {driver.process} on" in err

    wait_for(lambda: status().has_ended)
    assert status().state == "finished"
    log = Path("out/sweeps/s.log")
    assert status().log == str(log.resolve())
    wait_for(lambda: "6 cells of scale" in log.read_text())

    code, out, err = run(amb, "sweep", "s.yaml", "--output-dir", "out", "--detach")
    assert code == 0, err
    assert "finished already" in out


def test_a_detached_sweep_that_cannot_begin_says_why(amb: Any) -> None:
    Path("s.yaml").write_text(QUICK)
    Path("out").write_text("a file")
    code, _, err = run(amb, "sweep", "s.yaml", "--output-dir", "out", "--detach")
    assert code == 2
    assert "out is a file" in err


def test_a_finished_sweep_is_not_gone_through_again(amb: Any) -> None:
    Path("s.yaml").write_text(QUICK + "seeds: [0, 1]\n")
    code, table, err = run(amb, "sweep", "s.yaml", "--output-dir", "out")
    assert code == 0, err
    assert n_runs() == 2

    code, again, err = run(amb, "sweep", "s.yaml", "--output-dir", "out")
    assert code == 0
    assert again == table
    assert "10 cells of 2 finished runs taken as they are; 0 of 2 runs left" in err
    assert n_runs() == 2

    Path("s.yaml").write_text(QUICK + "seeds: [0, 1, 2]\n")
    _, _, err = run(amb, "sweep", "s.yaml", "--output-dir", "out")
    assert "10 cells of 2 finished runs taken as they are; 1 of 3 runs left" in err
    assert n_runs() == 3
    assert (status().cells, status().kept, status().done) == (15, 10, 5)


@pytest.mark.parametrize("pages", [2, 3, 4, 5])
def test_results_that_cannot_be_kept_end_the_sweep(pages: int, amb: Any, tmp_path: Path) -> None:
    """The disk of the results is full, that of the store is not."""
    with small_disk(tmp_path / "disk") as disk:
        filler, asked = disk / "filler", ("sweep", "s.yaml", "--output-dir", str(disk / "out"), "--store", "store")
        filler.write_bytes(bytes(2**20 - 4096 * pages))
        Path("s.yaml").write_text(QUICK)
        code, _, err = run(amb, *asked)
        assert code == 1, err
        assert err.splitlines()[-1].startswith(f"amb: The results in {disk}/out/runs/")
        assert "cannot be written: No space left on device. Free space" in err
        for lines in disk.glob("out/runs/*/results.jsonl"):
            assert read_lines(lines, lines.parent.name).damaged == [], "half a line was written"
        filler.unlink()
        code, out, err = run(amb, *asked)
        assert code == 0, err
        assert "5 cells of scale" in out


def test_a_driver_killed_when_all_was_there_is_said_to_be_over(amb: Any) -> None:
    Path("s.yaml").write_text(QUICK)
    assert run(amb, "sweep", "s.yaml", "--output-dir", "out")[0] == 0
    (path,) = Path("out/sweeps").glob("*.json")
    said = json.loads(path.read_text())
    path.write_text(json.dumps({**said, "state": "running"}))
    assert run(amb, "status", "--output-dir", "out")[0] == 1, "it says that it goes on, and its process is gone"
    assert run(amb, "sweep", "s.yaml", "--output-dir", "out")[0] == 0
    assert status().state == "finished"
    assert run(amb, "status", "--output-dir", "out")[0] == 0


@pytest.mark.parametrize("lost", ["evidence", "line", "failed"])
def test_a_run_that_lacks_anything_is_made_again(amb: Any, lost: str) -> None:
    Path("s.yaml").write_text(QUICK)
    assert run(amb, "sweep", "s.yaml", "--output-dir", "out")[0] == 0
    (lines,) = Path("out/runs").glob("*/results.jsonl")
    if lost == "evidence":
        entry = next(Path("out/store/evidence").iterdir())
        entry.rename("elsewhere")
    elif lost == "line":
        lines.write_text("".join(lines.read_text().splitlines(keepends=True)[:-1]))
    else:
        from amb.results.lines import parse_line, write_lines

        run_id = lines.parent.name
        cells = [parse_line(line, run_id)[1] for line in lines.read_text().splitlines()]
        lines.write_text(write_lines([{**cell, "status": "failed"} for cell in cells if cell], run_id))
    code, out, err = run(amb, "sweep", "s.yaml", "--output-dir", "out")
    assert code == 0, err
    assert "taken as they are" not in err
    assert n_runs() == 2
    assert "5 cells of scale" in out


# What is said of drivers elsewhere


@pytest.fixture
def elsewhere() -> SweepStatus:
    """A driver of another machine that lives."""
    process = ProcessName("another", 7, "1", "far")
    there = SweepStatus("s", "0123", process, time.time() - 60, cells=10, done=3, beat_at=time.time())
    write_status(Path("out"), there)
    return there


def test_a_driver_elsewhere_is_gone_when_it_says_nothing(elsewhere: SweepStatus) -> None:
    assert [each.driver for each in find_running(Path("out"))] == ["0123"]
    result = CliRunner().invoke(cli, ["status", "--output-dir", "out"], standalone_mode=False)
    assert "process 7 on far" in result.output
    assert result.return_value == 0

    write_status(Path("out"), replace(elsewhere, beat_at=time.time() - 3600))
    assert find_running(Path("out")), "its clock is late, and it has just written"

    age_status(Path("out"), elsewhere, GONE_SECONDS + 1)
    assert find_running(Path("out")) == []
    result = CliRunner().invoke(cli, ["status", "--output-dir", "out"], standalone_mode=False)
    assert "process 7 on far, has said nothing for 31 s" in result.output
    assert result.return_value == 1


def age_status(output: Path, status: SweepStatus, seconds: float) -> None:
    """As if it had been written so long ago."""
    path = output / "sweeps" / f"{status.sweep}.{status.driver}.json"
    os.utime(path, (path.stat().st_mtime - seconds,) * 2)


def test_a_request_that_has_gone_stops_nothing(elsewhere: SweepStatus, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where the folder cannot be reached for a moment: a request to finish does not become one to stop now."""
    asked = list[str]()
    monkeypatch.setattr(driver_module, "interrupt", lambda: asked.append("now"))
    monkeypatch.setattr(driver_module, "ask_to_stop", lambda: asked.append("finish"))
    driver = driver_module.Driver(Path("out"), elsewhere, lambda _: None)
    for request in ("finish", None, "finish"):
        path = Path("out/sweeps/s.0123.stop")
        path.write_text(request) if request else path.unlink()
        driver._heed_request()
    assert asked == ["finish"]


def test_a_driver_that_does_not_answer_is_named(elsewhere: SweepStatus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stop_command, "HEARD_SECONDS", 0.5)
    result = CliRunner().invoke(cli, ["stop", "--output-dir", "out"], standalone_mode=False)
    assert "sweep s, process 7 on far: no answer in 0 s" in result.output
    assert result.return_value == 1
    assert read_request(Path("out"), elsewhere) == "finish"
    request_stop(Path("out"), elsewhere)
    assert read_request(Path("out"), elsewhere) == "now", "asked twice"


def test_a_process_of_the_same_number_is_not_the_driver() -> None:
    here = name_this_process()
    assert not here.is_dead()
    assert replace(here, started="1").is_dead()
    assert not replace(here, machine="another", process=2**22).is_dead(), "nothing is certain of other machines"


def test_what_is_no_status_is_passed_over(elsewhere: SweepStatus) -> None:
    text = Path("out/sweeps/s.0123.json").read_text()
    for name, content in {
        "s.1.json": "{", "s.2.json": "[]", "s.3.json": "{}", "s.4.json": text, "s.5.json": text.replace('"done": 3', '"done": "3"'),
        "s.6.json": text.replace('"running"', '"no such state"'),
    }.items():  # fmt: skip
        Path("out/sweeps", name).write_text(content)
    assert [each.driver for each in read_statuses(Path("out"))] == ["0123"]


def test_no_sweep_is_said_so() -> None:
    result = CliRunner().invoke(cli, ["status", "--output-dir", "nowhere"])
    assert "No sweep has run in nowhere so far" in str(result.exception)
