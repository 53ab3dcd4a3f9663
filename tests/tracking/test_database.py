"""MLflow's file: made whole or not at all, made again where it was left half-made, and nobody else's is touched."""

from __future__ import annotations

import shutil
import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from mlflow import MlflowClient

from amb.plugin.manager import Manager
from amb.tracking import database as databases
from amb.tracking.connection import tracking_uri
from amb.tracking.database import ensure_database
from amb.tracking.links import connect
from tests.tracking.made_up import find_faults, run_made_up


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole file, for making one takes seconds."""
    folder = tmp_path_factory.mktemp("whole")
    ensure_database(folder / "mlflow.db", folder / "mlartifacts", print, mend=False)
    assert [path.name for path in sorted(folder.iterdir())] == [".mlflow.lock", "mlflow.db"], "one file, and no draft"
    return folder / "mlflow.db"


@pytest.fixture
def copying(template: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Files are made by copying; which were made."""
    made: list[Path] = []

    def copy(database: Path, artifacts: Path) -> None:
        time.sleep(0.1)
        made.append(database)
        shutil.copy(template, database)

    monkeypatch.setattr(databases, "_make_database", copy)
    return made


def execute(database: Path, *commands: str) -> None:
    with closing(sqlite3.connect(database)) as connection:
        for command in commands:
            connection.execute(command)
        connection.commit()


def stop_before_the_end(database: Path) -> None:
    execute(database, "DELETE FROM experiments")


def stop_between_tables(database: Path) -> None:
    """The state in which MLflow says `table ... already exists` for ever."""
    execute(database, "DROP TABLE alembic_version", "DROP TABLE runs", "DROP TABLE experiments")


def stop_at_once(database: Path) -> None:
    database.write_bytes(b"")


def scribble(database: Path) -> None:
    database.write_bytes(b"no database" * 1000)


def cut(database: Path) -> None:
    database.write_bytes(database.read_bytes()[:9000])


@pytest.mark.parametrize("spoil", [stop_before_the_end, stop_between_tables, stop_at_once, scribble, cut])
def test_what_was_left_half_made_is_made_again_and_said(
    spoil: Callable[[Path], None], template: Path, copying: list[Path], tmp_path: Path
) -> None:
    database = tmp_path / "mlflow.db"
    shutil.copy(template, database)
    spoil(database)
    (tmp_path / ".draft-mlflow.db").write_text("of a killed process")
    said: list[str] = []
    ensure_database(database, tmp_path / "mlartifacts", said.append, mend=True)
    assert len(copying) == 1
    (line,) = said
    assert "is made again" in line
    assert "`amb track sync` fills it from the results" in line
    kept = tmp_path / "mlflow.db.damaged"
    assert kept.exists() == ("damaged" in line) == (spoil in (scribble, cut))
    assert MlflowClient(f"sqlite:///{database}").get_experiment_by_name("amb")
    ensure_database(database, tmp_path / "mlartifacts", said.append, mend=True)
    assert len(said) == 1


def test_a_whole_file_and_one_of_somebody_else_stay_as_they_are(
    template: Path, copying: list[Path], tmp_path: Path
) -> None:
    whole, foreign = tmp_path / "whole.db", tmp_path / "foreign.db"
    for each in (whole, foreign):
        shutil.copy(template, each)
    stop_and_use(foreign)
    for each in (whole, foreign):
        before = each.read_bytes()
        ensure_database(each, tmp_path / "mlartifacts", pytest.fail, mend=True)
        assert each.read_bytes() == before
    spoilt = tmp_path / "spoilt.db"
    stop_at_once(spoilt)
    ensure_database(spoilt, tmp_path / "mlartifacts", pytest.fail, mend=False)
    assert copying == []


def stop_and_use(database: Path) -> None:
    """Without amb's experiment, and with a run of somebody else."""
    execute(
        database,
        "DELETE FROM experiments WHERE name = 'amb'",
        "INSERT INTO runs (run_uuid, experiment_id, status) SELECT 'x', min(experiment_id), 'FINISHED' FROM experiments",
    )


def test_many_at_once_make_one(copying: list[Path], tmp_path: Path) -> None:
    threads = [
        threading.Thread(
            target=ensure_database,
            args=(tmp_path / "mlflow.db", tmp_path / "mlartifacts", print),
            kwargs={"mend": True},
        )
        for _ in range(5)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(copying) == 1


def test_runs_and_pages_find_a_half_made_file_mended(
    tracked_manager: Manager, template: Path, copying: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stop_at_once(tmp_path / "mlflow.db")
    _, said, _ = run_made_up(tracked_manager, tmp_path)
    assert said == []
    assert "was half-made, and is made again" in capsys.readouterr().err
    assert find_faults(tmp_path, tracking_uri(tmp_path)) == []
    other = tmp_path / "other"
    other.mkdir()
    stop_at_once(other / "mlflow.db")
    connect(other)
    assert "was half-made, and is made again" in capsys.readouterr().err
