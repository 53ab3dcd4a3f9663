"""MLflow that is away, slow or half-told: no result waits for it, and `sync` makes it whole, each cell exactly once."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest
from mlflow import MlflowClient

from amb.errors import AmbError
from amb.plugin.manager import Manager
from amb.runtime.progress import Silent
from amb.tracking import background, connection, observer, patience, session
from amb.tracking.connection import strip_password
from amb.tracking.file_client import FileClient
from amb.tracking.sync import SyncedRun, sync
from tests.tracking.hostile_server import MANNERS, serving_badly
from tests.tracking.made_up import find_faults, find_tracked, go_through, run_made_up, start_run

PATIENCE = (0.05, 0.3, 1.2)
"""Of a run for a server, in place of seconds."""


@pytest.fixture(autouse=True)
def short_of_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "_SERVER", PATIENCE)
    monkeypatch.setattr(background, "_LAST_PAUSE", 0.1)
    monkeypatch.setattr(observer, "_given_up", {})


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with MLflow's file, for it takes seconds to make."""
    from amb.tracking.database import ensure_database

    folder = tmp_path_factory.mktemp("whole")
    ensure_database(folder / "mlflow.db", folder / "mlartifacts", print, mend=False)
    return folder


def uri_of(folder: Path) -> str:
    return f"sqlite:///{folder / 'mlflow.db'}"


def tell(output: Path, manager: Manager, uri: str, monkeypatch: pytest.MonkeyPatch) -> list[SyncedRun]:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    return sync(output, manager.registry, Silent(), print)


def of_run(database: Path, run: str) -> list[str]:
    return sorted(each.info.run_name for each in find_tracked(uri_of(database)) if each.data.tags["amb.run"] == run)


@pytest.mark.parametrize("manner", [*MANNERS, "dead"])
def test_no_result_waits_for_a_bad_server(
    manner: str, tracked_manager: Manager, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving_badly("503" if manner == "dead" else manner) as address:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9" if manner == "dead" else address)
        run, said, seconds = run_made_up(tracked_manager, tmp_path)
        _, nothing, again = run_made_up(tracked_manager, tmp_path)
    assert seconds < sum(PATIENCE) + 1.5
    assert again < 1, "what was given up is left alone for a while"
    assert nothing == []
    (warning,) = said
    assert "knows 0 of 8 cells of this run" in warning
    assert f"`amb track sync --output-dir {tmp_path}`" in warning
    assert warning.isprintable()
    assert "mlflow" not in run.links


ADDRESSES = {
    "no such scheme": "nonsense://user:secret@x",
    "no scheme": "\x1b[2J:\n//x",
    "no port": "http://user:secret@localhost:no/",
    "control characters": "http://user:secret@127.0.0.1:9/\x1b[2J\nwarning: forged",
    "long": "http://127.0.0.1:9/" + "x" * 10_000,
    "long name": "sqlite:///" + "x" * 10_000,
    "no such folder": "sqlite:////proc/no/mlflow.db",
    "no such database": "postgresql://user:secret@127.0.0.1:9/x",
    "somebody's cloud": "databricks://user",
}


@pytest.mark.parametrize("uri", ADDRESSES.values(), ids=list(ADDRESSES))
def test_a_hostile_address_is_one_warning(
    uri: str, tracked_manager: Manager, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patience, "_FILE", PATIENCE)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    run, said, seconds = run_made_up(tracked_manager, tmp_path)
    assert seconds < sum(PATIENCE) + 2
    (warning,) = said
    assert warning.isprintable()
    assert "secret" not in warning
    assert len(warning) < 1500
    assert len((run.folder / "results.jsonl").read_text().splitlines()) == 8


@pytest.mark.parametrize(
    ("uri", "kept"),
    [
        ("http://user:secret@host:5000/a", "http://host:5000/a"),
        ("https://user:se@cret@host", "https://host"),
        ("http://host/a@b?password=secret", "http://host/a@b?password=***"),
        ("http://host:5000", "http://host:5000"),
    ],
)
def test_links_hold_no_password(uri: str, kept: str) -> None:
    assert strip_password(uri) == kept


def test_what_a_run_keeps_of_its_address_holds_no_password(
    tracked_manager: Manager, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://user:secret@127.0.0.1:9")
    run = start_run(tracked_manager, tmp_path)
    tracked_manager.notify("amb_run_started", run=run)
    assert run.links["mlflow"] == "http://127.0.0.1:9"
    tracked_manager.notify("amb_run_finished", run=run)
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and b"secret" in path.read_bytes()]


def test_a_page_that_is_pushed_on_while_it_is_read_takes_no_run_away(
    tracked_manager: Manager, tmp_path: Path, database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that others make meanwhile comes in before the rest, so the last of a page is the first of the next as well."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri_of(database))
    run, _, _ = run_made_up(tracked_manager, tmp_path)
    search, last = MlflowClient.search_runs, []

    def push(self, *args, **options):
        page = search(self, *args, **options)
        page[:0] = last if options.get("page_token") else []
        last[:] = page[-1:]
        return page

    monkeypatch.setattr(session, "_PAGE", 3)
    monkeypatch.setattr(MlflowClient, "search_runs", push)
    (told,) = sync(tmp_path, tracked_manager.registry, Silent(), print)
    monkeypatch.undo()
    assert (told.state, told.told) == ("whole", 0)
    assert len(of_run(database, run.id)) == 1 + 2 + 8


def test_sync_makes_whole_what_a_bad_server_has_missed(
    tracked_manager: Manager, tmp_path: Path, database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    runs = [run_made_up(tracked_manager, tmp_path)[0] for _ in range(2)]
    for n_told in (8, 0):
        told = tell(tmp_path, tracked_manager, uri_of(database), monkeypatch)
        assert [(each.run, each.cells, each.told) for each in told] == [(run.id, 8, n_told) for run in runs]
        assert [len(of_run(database, run.id)) for run in runs] == [1 + 2 + 8, 1 + 2 + 8]
    assert find_faults(tmp_path, uri_of(database)) == []


@pytest.fixture(params=[MlflowClient, FileClient])
def client_class(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> type[MlflowClient]:
    """Whose calls fail: MLflow's own, as to a server, or the one of its file."""
    if request.param is MlflowClient:
        monkeypatch.setattr(connection, "make_client", MlflowClient)
    return request.param


def test_what_fails_for_a_moment_is_told_again_and_once(
    tracked_manager: Manager,
    tmp_path: Path,
    database: Path,
    client_class: type[MlflowClient],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Every fourth call fails, half of them after it was heeded: as a server that is slower than our patience."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri_of(database))
    monkeypatch.setattr(background, "_PAUSES", (0.01,))
    monkeypatch.setattr(background, "_LAST_PAUSE", 0.01)
    calls = [0]
    for name in ("create_run", "log_batch", "set_terminated"):
        monkeypatch.setattr(client_class, name, failing(getattr(client_class, name), calls))
    run, said, _ = run_made_up(tracked_manager, tmp_path)
    monkeypatch.undo()
    assert calls[0] > 30
    assert said == []
    tracked = [each for each in find_tracked(uri_of(database)) if each.data.tags["amb.run"] == run.id]
    assert len(tracked) == 1 + 2 + 8
    assert {each.info.status for each in tracked} == {"FINISHED"}
    client = MlflowClient(uri_of(database))
    for cell in (each for each in tracked if each.data.tags["amb.level"] == "cell"):
        curve = client.get_metric_history(cell.info.run_id, "detection_rate_at_tau")
        assert [point.step for point in sorted(curve, key=lambda point: point.step)] == list(range(5)), "no point twice"


def failing(method, calls):
    def call(self, *args, **options):
        calls[0] += 1
        if calls[0] % 8 == 4:
            raise ConnectionError("before")
        done = method(self, *args, **options)
        if calls[0] % 8 == 0:
            raise ConnectionError("after")
        return done

    return call


def test_a_server_that_goes_half_way_keeps_what_it_has_and_gets_the_rest_once(
    tracked_manager: Manager,
    tmp_path: Path,
    database: Path,
    client_class: type[MlflowClient],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri_of(database))
    monkeypatch.setattr(patience, "_FILE", (5.0, 2.0, 1.0))
    calls, gone = [0], threading.Event()
    create = client_class.create_run

    def go(self, *args, **options):
        calls[0] += 1
        if calls[0] > 5:
            gone.wait(60)
            raise ConnectionError("gone")
        return create(self, *args, **options)

    monkeypatch.setattr(client_class, "create_run", go)
    run, said, seconds = run_made_up(tracked_manager, tmp_path)
    gone.set()
    monkeypatch.setattr(client_class, "create_run", create)
    assert seconds < 3 + 5
    assert "knows 3 of 8 cells of this run (no answer in time)" in said[0]
    assert len(of_run(database, run.id)) == 5
    (told,) = tell(tmp_path, tracked_manager, uri_of(database), monkeypatch)
    assert (told.cells, told.told, told.closed) == (8, 5, 2), "the run and a summary were RUNNING"
    assert len(of_run(database, run.id)) == 11


def test_of_two_that_are_the_same_one_is_left(
    tracked_manager: Manager, tmp_path: Path, database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server may heed a request long after nobody waits for it any more."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri_of(database))
    run, _, _ = run_made_up(tracked_manager, tmp_path)
    client = MlflowClient(uri_of(database))
    tracked = [each for each in find_tracked(uri_of(database)) if each.data.tags["amb.run"] == run.id]
    pairs = {}
    for each in tracked:
        twin = client.create_run(each.info.experiment_id, tags=dict(each.data.tags))
        pairs[each.data.tags["amb.id"]] = (each.info.run_id, twin.info.run_id)
    (told,) = tell(tmp_path, tracked_manager, uri_of(database), monkeypatch)
    assert told.state == "whole"
    left = [each for each in find_tracked(uri_of(database)) if each.data.tags["amb.run"] == run.id]
    assert {each.info.run_id for each in left} == {min(each) for each in pairs.values()}, "whoever looks keeps the same"
    assert find_faults(tmp_path, uri_of(database)) == []


def test_sync_says_the_same_as_the_run_itself(
    tracked_manager: Manager, tmp_path: Path, database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri_of(database))
    run, _, _ = run_made_up(tracked_manager, tmp_path)
    live = describe(database, run.id)
    client = MlflowClient(uri_of(database))
    for each in find_tracked(uri_of(database)):
        client.delete_run(each.info.run_id)
    tell(tmp_path, tracked_manager, uri_of(database), monkeypatch)
    assert describe(database, run.id) == live


def describe(database: Path, run: str) -> dict[str, object]:
    """Name, status, metrics, parameters and tags of all that MLflow has of a run, with the files' names."""
    client = MlflowClient(uri_of(database))
    found: dict[str, object] = {}
    for each in find_tracked(uri_of(database)):
        if each.data.tags["amb.run"] == run:
            tags = {name: tag for name, tag in each.data.tags.items() if name != "mlflow.parentRunId"}
            files = sorted(item.path for item in client.list_artifacts(each.info.run_id))
            found[each.info.run_name] = (each.info.status, each.data.metrics, each.data.params, tags, files)
    return found


def test_a_run_that_goes_on_is_left_to_itself(
    tracked_manager: Manager, tmp_path: Path, database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri_of(database))
    run = start_run(tracked_manager, tmp_path)
    go_through(tracked_manager, run, 3, finish=False)
    (told,) = sync(tmp_path, tracked_manager.registry, Silent(), print)
    assert (told.state, told.told) == ("running", 0)
    tracked_manager.notify("amb_run_finished", run=run)
    (told,) = sync(tmp_path, tracked_manager.registry, Silent(), print)
    assert (told.state, told.cells, told.told) == ("whole", 3, 0)


def test_sync_at_a_dead_server_is_one_line(
    tracked_manager: Manager, tmp_path: Path, database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri_of(database))
    run_made_up(tracked_manager, tmp_path)
    started = time.monotonic()
    with pytest.raises(AmbError, match="does not take what it is told") as caught:
        tell(tmp_path, tracked_manager, "http://user:secret@127.0.0.1:9", monkeypatch)
    assert time.monotonic() - started < 10
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_results_are_written_before_mlflow_hears_of_them(
    tracked_manager: Manager, tmp_path: Path, database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that a kill never leaves MLflow with what the results lack."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri_of(database))
    run = start_run(tracked_manager, tmp_path)
    seen: list[tuple[bool, int]] = []

    def look(*_: object, **__: object) -> None:
        lines = run.folder / "results.jsonl"
        cells = len(lines.read_text().splitlines()) if lines.exists() else 0
        seen.append(((run.folder / "run.json").exists(), cells))

    for name in ("begin", "tell_cell", "close_summary", "finish"):
        monkeypatch.setattr(f"amb.tracking.session.Session.{name}", look)
    go_through(tracked_manager, run)
    assert seen == [(True, n_cells) for n_cells in (0, 1, 2, 3, 4, 4, 5, 6, 7, 8, 8, 8)]
