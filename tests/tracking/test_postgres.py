"""MLflow on PostgreSQL, a real server of this test's: what is lost in a crash is told again, each cell once, and no password shows.

`python -m tests.tracking.postgres_outage` does the same with 2,000 cells.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import NamedTuple

import pytest

import amb
from amb.api.run import Run
from amb.cli import main
from amb.errors import AmbError
from amb.plugin.manager import Manager
from amb.runtime.progress import Silent
from amb.tracking import observer, patience, postgres
from amb.tracking.connection import import_mlflow
from amb.tracking.postgres import alone, name_driver
from amb.tracking.server import pick_port, serving
from amb.tracking.session import Session
from amb.tracking.sync import SyncedRun, sync
from tests.conftest import ToyPlugin, run_toy
from tests.tracking.made_up import run_made_up
from tests.tracking.no_op import SUSPECTS_BESIDE_ATTACKS, NoOpPlugin
from tests.tracking.postgres import PASSWORD, Postgres, find_programs, give_away, run_as_owner, serving_postgres
from tests.tracking.postgres_outage import ROOT, count_cells, find_faults, find_passwords

pytest.importorskip("psycopg", reason="psycopg is not installed: pip install 'activemark-bench[postgres]'")
pytestmark = pytest.mark.skipif(find_programs() is None, reason="initdb is not found: apt-get install postgresql")

CELLS, METHODS = 100, 5
NUMBERS = count()


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    with serving_postgres() as running:
        yield running


@pytest.fixture(scope="module")
def template(server: Postgres) -> str:
    """A database with MLflow's tables, which take seconds to make; in another process, since MLflow keeps connections open."""
    server.create("template")
    code = "from pathlib import Path; from amb.tracking.connection import *; import_mlflow(); open_client(Path('.'), print)"
    settings = {**os.environ, "MLFLOW_TRACKING_URI": server.uri("template")}
    subprocess.run([sys.executable, "-c", code], env=settings, cwd=ROOT, check=True)
    return "template"


@pytest.fixture
def database(server: Postgres, template: str) -> Iterator[str]:
    """One with tables and without runs."""
    name = f"test-{next(NUMBERS)}"
    server.ask("postgres", f'CREATE DATABASE "{name}" TEMPLATE {template}')
    yield name


def run_cells(manager: Manager, output: Path) -> tuple[Run, list[str]]:
    """A real run of a hundred cells of components that do next to nothing, and the warnings."""
    manager.register(NoOpPlugin(), "no-op")
    attacks = [f"no-op:n={n}" for n in range(1, CELLS // METHODS - SUSPECTS_BESIDE_ATTACKS + 1)]
    methods = [f"no-op:n={n}" for n in range(METHODS)]
    said: list[str] = []
    return run_toy(manager, output, said, suite="no-op", methods=methods, attacks=attacks), said


def copy_results(results: Path, output: Path) -> Path:
    return Path(shutil.copytree(results, output, ignore=shutil.ignore_patterns(".tracking.lock")))


def tell(manager: Manager, output: Path) -> SyncedRun:
    (told,) = sync(output, manager.registry, Silent(), print)
    return told


class CrashingPlugin:
    """Stops PostgreSQL after a quarter of the cells, as a crash would, and starts it after half of them."""

    def __init__(self, server: Postgres) -> None:
        self.server = server

    @amb.hookimpl
    def amb_cell_finished(self, run: Run) -> None:
        if len(run.results) == CELLS // 4:
            self.server.stop("immediate")
        elif len(run.results) == CELLS // 2:
            self.server.start()


class Crashed(NamedTuple):
    """What a run left during which PostgreSQL crashed."""

    run: Run
    said: list[str]
    database: str


@pytest.fixture(scope="module")
def crashed(server: Postgres, template: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Crashed]:
    server.ask("postgres", f"CREATE DATABASE crashed TEMPLATE {template}")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("work"))
        patch.setenv("MLFLOW_TRACKING_URI", server.uri("crashed", ""))  # `postgresql://`, as people write it
        patch.setenv("AMB_DISABLE_PLUGINS", "mlflow")
        patch.setattr(patience, "_SERVER", (0.25, 2.0, 0.1))  # what is not told by then is left to sync
        patch.setattr(observer, "_given_up", {})
        manager = Manager()
        for name, plugin in {"toy": ToyPlugin(), "mlflow-again": observer, "crash": CrashingPlugin(server)}.items():
            manager.register(plugin, name)
        run, said = run_cells(manager, Path("results").resolve())
        yield Crashed(run, said, "crashed")


def test_a_hundred_cells_through_a_crash_are_there_once(
    server: Postgres, crashed: Crashed, tracked_manager: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri(crashed.database, ""))
    tracked_manager.register(NoOpPlugin(), "no-op")
    run, said, database = crashed
    assert len(run.results) == CELLS
    assert not run.failed
    (warning,) = [line for line in said if "MLflow" in line]
    assert warning.isprintable()
    assert f"of {CELLS} cells of this run" in warning
    n_told = count_cells(server, database)
    assert 0 < n_told < CELLS
    told = tell(tracked_manager, run.output)
    assert (told.state, told.cells) == ("whole", CELLS)
    assert CELLS - n_told - 1 <= told.told <= CELLS, "one more may have been under way"
    again = tell(tracked_manager, run.output)
    assert (again.told, again.closed) == (0, 0)
    assert find_faults(server, database, run.output, CELLS) == []
    assert find_passwords(server, database, run.output) == []
    assert PASSWORD not in "".join(said) + str(run.links)
    assert not (run.output.parent / "mlruns").exists(), "nobody else could read a folder of this machine"


def test_two_machines_that_tell_the_same_at_once_tell_it_once(
    server: Postgres,
    database: str,
    crashed: Crashed,
    tracked_manager: Manager,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Copies of the results: no lock file keeps the two apart. Each looks first when neither has told anything."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri(database))
    tracked_manager.register(NoOpPlugin(), "no-op")
    copies = [copy_results(crashed.run.output, tmp_path / f"copy-{number}") for number in range(2)]
    look, barrier = Session._look, threading.Barrier(2)

    def look_together(self: Session) -> object:
        is_first = self._known is None and self.n_changes == 0
        found = look(self)
        if is_first:
            barrier.wait(60)
        return found

    monkeypatch.setattr(Session, "_look", look_together)
    import_mlflow()
    told: list[SyncedRun] = []
    threads = [threading.Thread(target=lambda copy=copy: told.append(tell(tracked_manager, copy))) for copy in copies]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [each.state for each in told] == ["whole", "whole"]
    assert server.ask(database, "SELECT count(*) > 0 FROM runs WHERE lifecycle_stage = 'deleted'") == [(True,)]
    assert find_faults(server, database, copies[0], CELLS) == []
    monkeypatch.undo()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri(database))
    assert tell(tracked_manager, copies[0]).told == 0


def test_mlflows_server_that_is_killed_loses_nothing(
    server: Postgres,
    database: str,
    crashed: Crashed,
    tracked_manager: Manager,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tracked_manager.register(NoOpPlugin(), "no-op")
    output, port = copy_results(crashed.run.output, tmp_path / "one"), pick_port("127.0.0.1", None)
    (tmp_path / "server").mkdir()
    for is_killed in (True, False):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri(database))
        with serving(tmp_path / "server", "127.0.0.1", port, 300, lambda _: None) as running:
            assert PASSWORD not in Path(f"/proc/{running.process.pid}/cmdline").read_text(), (
                "everybody sees these words"
            )
            monkeypatch.setenv("MLFLOW_TRACKING_URI", running.address)
            if is_killed:
                threading.Thread(target=kill_at, args=(server, database, CELLS // 4, running.process.pid)).start()
                with pytest.raises(AmbError, match="does not take what it is told") as caught:
                    tell(tracked_manager, output)
                assert "\n" not in str(caught.value)
            else:
                tell(tracked_manager, output)
                again = tell(tracked_manager, output)
    assert (again.told, again.closed) == (0, 0)
    assert find_faults(server, database, output, CELLS) == []
    assert len(list((tmp_path / "server" / "mlartifacts").rglob("verdict.json"))) == CELLS - METHODS, "one was skipped"
    assert find_passwords(server, database, tmp_path) == []


def kill_at(server: Postgres, database: str, n_cells: int, process: int) -> None:
    while count_cells(server, database) < n_cells:
        time.sleep(0.1)
    os.killpg(process, signal.SIGKILL)


# What is wrong is one line, at once


@pytest.fixture
def finished(tracked_manager: Manager, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Eight cells that wait for `amb track sync`."""
    monkeypatch.setenv("AMB_DISABLE_PLUGINS", "mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setattr(patience, "_SERVER", (0.0, 0.0, 0.0))
    run_made_up(tracked_manager, tmp_path / "amb-results")
    return tmp_path / "amb-results"


WRONG = {
    "password": ("{0}", "guess-77", 'password authentication failed for user "amb"'),
    "database": ("nowhere", PASSWORD, 'database "nowhere" does not exist'),
}


@pytest.mark.parametrize("command", [["track", "sync"], ["ui", "--no-browser"]], ids=lambda command: command[0])
@pytest.mark.parametrize("wrong", WRONG.values(), ids=list(WRONG))
def test_a_wrong_address_is_one_line(
    command: list[str],
    wrong: tuple[str, str, str],
    server: Postgres,
    finished: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    database, password, expected = wrong
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri(database.format("postgres"), "", password))
    code, said = run_command(command, capfd)
    assert code == 1
    assert expected in said
    assert password not in said
    assert said.count("\n") == 1


@pytest.mark.parametrize("command", [["track", "sync"], ["ui", "--no-browser"]], ids=lambda command: command[0])
def test_a_server_that_is_away_is_one_line(
    command: list[str], finished: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"postgresql://127.0.0.1:9/x?user=amb&password={PASSWORD}")
    started = time.monotonic()
    code, said = run_command(command, capfd)
    assert code == 1
    assert "Connection refused" in said
    assert PASSWORD not in said
    assert said.count("\n") == 1
    assert time.monotonic() - started < 20, "MLflow alone would try for a hundred seconds"


@pytest.mark.parametrize("command", [["track", "sync"], ["ui", "--no-browser"]], ids=lambda command: command[0])
def test_a_missing_extra_is_one_line(
    command: list[str], finished: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"postgresql://amb:{PASSWORD}@127.0.0.1:9/x")
    monkeypatch.setattr(postgres, "find_spec", lambda _: None)
    code, said = run_command(command, capfd)
    assert code == 3
    assert "pip install 'activemark-bench[postgres]'" in said
    assert PASSWORD not in said
    assert said.count("\n") == 1


def run_command(words: list[str], capfd: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """Exit code and standard error."""
    with pytest.raises(SystemExit) as ended:
        main([*words, *(["--quiet"] if words[0] == "track" else [])])
    return int(ended.value.code or 0), capfd.readouterr().err


def test_a_run_without_the_extra_warns_once_and_goes_on(
    tracked_manager: Manager, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"postgresql://amb:{PASSWORD}@127.0.0.1:9/x")
    monkeypatch.setattr(postgres, "find_spec", lambda _: None)
    run, said, _ = run_made_up(tracked_manager, tmp_path)
    (warning,) = said
    assert "activemark-bench[postgres]" in warning
    assert PASSWORD not in warning + (run.folder / "run.json").read_text()
    assert len((run.folder / "results.jsonl").read_text().splitlines()) == 8
    assert "mlflow" not in run.links


# Details


def test_the_recipe_of_the_page_makes_a_database() -> None:
    """Its first block, on a free port."""
    import psycopg

    port = pick_port("127.0.0.1", None)
    block = (ROOT / "docs" / "tracking.md").read_text(encoding="utf-8").split("```sh\n")[1].partition("```")[0]
    with tempfile.TemporaryDirectory(prefix="amb-pg-") as scratch:
        folder = Path(scratch)
        give_away(folder)
        run_as_owner(["bash", "-ec", block.replace("5433", str(port))], folder)
        try:
            password = (folder / "password").read_text().strip()
            with psycopg.connect(f"postgresql://amb:{password}@localhost:{port}/mlflow") as connection:
                assert connection.execute("SELECT 1").fetchall() == [(1,)]
            assert (folder / "password").stat().st_mode & 0o077 == 0
        finally:
            run_as_owner([f"{find_programs()}/pg_ctl", "-D", "data", "-m", "immediate", "stop"], folder)


def test_tables_are_made_by_one_at_a_time(server: Postgres) -> None:
    uri, entered, order = server.uri("postgres"), threading.Event(), []

    def wait_for_turn() -> None:
        entered.wait()
        with alone(uri):
            order.append("second")

    other = threading.Thread(target=wait_for_turn)
    other.start()
    with alone(uri):
        entered.set()
        time.sleep(1)
        order.append("first")
    other.join()
    assert order == ["first", "second"]


@pytest.mark.parametrize(
    ("uri", "named"),
    [
        ("postgresql://u@h/d", "postgresql+psycopg://u@h/d"),
        ("postgres://u@h/d", "postgresql+psycopg://u@h/d"),
        ("postgresql+psycopg://u@h/d", "postgresql+psycopg://u@h/d"),
        ("postgresql+psycopg2://u@h/d", "postgresql+psycopg2://u@h/d"),
        ("sqlite:////a/postgresql://", "sqlite:////a/postgresql://"),
        ("http://h/postgresql://", "http://h/postgresql://"),
    ],
)
def test_the_driver_is_named(uri: str, named: str) -> None:
    assert name_driver(uri) == named
