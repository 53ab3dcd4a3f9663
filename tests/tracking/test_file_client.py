"""What the quick client writes of a cell is what MLflow itself writes, row by row and file by file."""

from __future__ import annotations

import math
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.entities import Metric, Param, Run
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

from amb.tracking.connection import import_mlflow, make_client, open_client, tracking_uri
from amb.tracking.file_client import FileClient

TAGS = {
    "amb.level": "cell",
    "mlflow.runName": "prune40 · noop",
    "mlflow.parentRunId": "0" * 32,
    "kind": "positive",
    "é": "ü",
}
METRICS = [
    Metric("rate", 0.5, 1000, 0), Metric("curve", 0.1, 1000, 0), Metric("curve", 0.7, 1000, 2), Metric("curve", 0.4, 1000, 1),
    Metric("none", math.nan, 1000, 0), Metric("far", math.inf, 1000, 0), Metric("near", -math.inf, 1000, 0),
    Metric("rate", 0.5, 1000, 0), Metric("whole", 3, 1000, 0),
]  # fmt: skip
PARAMS = [Param("method", "noop"), Param("empty", ""), Param("text", "x" * 500)]


@pytest.fixture
def quick() -> MlflowClient:
    import_mlflow()
    return open_client(Path("out"), lambda _: None).client


def tell(client: MlflowClient) -> str:
    experiment = client.get_experiment_by_name("amb").experiment_id
    run = client.create_run(experiment, start_time=1000, tags=dict(TAGS))
    run_id = str(run.info.run_id)
    client.log_batch(run_id, METRICS, PARAMS)
    client.log_batch(run_id, [Metric("late", 1.0, 1000, 0)])
    log_file(client, run, "figure.png")
    client.set_terminated(run_id, "FINISHED", 2000)
    return run_id


def log_file(client: MlflowClient, run: Run, name: str) -> None:
    """As a session does."""
    Path(name).write_bytes(b"png")
    get_artifact_repository(run.info.artifact_uri, tracking_uri=client.tracking_uri).log_artifact(name)


def rows(run_id: str) -> dict[str, list[tuple[Any, ...]]]:
    """All that the file holds of a run, its id and name of artifacts' folder left out."""
    found = {}
    with closing(sqlite3.connect("out/mlflow.db")) as connection:
        tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        for table in tables:
            columns = [column[1] for column in connection.execute(f"PRAGMA table_info({table})")]
            if "run_uuid" in columns:
                told = connection.execute(f"SELECT * FROM {table} WHERE run_uuid = ?", (run_id,))
                said = [tuple(str(value).replace(run_id, "ID") for value in row) for row in told]
                found[table] = sorted(said)
    return found


def test_the_rows_and_files_of_a_cell_are_mlflows(quick: MlflowClient) -> None:
    assert isinstance(quick, FileClient)
    slow = MlflowClient(tracking_uri(Path("out")))
    ours, theirs = tell(quick), tell(slow)
    assert rows(ours) == rows(theirs)
    assert len(rows(ours)["metrics"]) == 9
    read = slow.get_run(ours)
    assert read.data.metrics["curve"] == 0.7
    assert read.info.status == "FINISHED"
    assert {each.path: each.file_size for each in slow.list_artifacts(ours)} == {
        each.path: each.file_size for each in slow.list_artifacts(theirs)
    }
    texts = [Path(slow.download_artifacts(run_id, "figure.png")).read_bytes() for run_id in (ours, theirs)]
    assert texts == [b"png", b"png"]


def test_a_cell_that_is_given_up_leaves_nothing(quick: MlflowClient) -> None:
    experiment = quick.get_experiment_by_name("amb").experiment_id
    run = quick.create_run(experiment, start_time=1, tags=dict(TAGS))
    run_id = run.info.run_id
    log_file(quick, run, "figure.png")
    assert Path("out/mlartifacts", run_id).exists()
    assert not any(rows(run_id).values())
    tell(quick)
    assert not Path("out/mlartifacts", run_id).exists()
    assert not any(rows(run_id).values())


def test_what_is_no_cell_is_there_at_once(quick: MlflowClient) -> None:
    experiment = quick.get_experiment_by_name("amb").experiment_id
    run_id = quick.create_run(experiment, start_time=1, tags={**TAGS, "amb.level": "summary"}).info.run_id
    quick.log_batch(run_id, METRICS[:2])
    assert quick.get_run(run_id).info.status == "RUNNING"
    assert quick.get_run(run_id).data.metrics["rate"] == 0.5


def test_a_file_with_other_tables_is_told_through_mlflow(quick: MlflowClient) -> None:
    with closing(sqlite3.connect("out/mlflow.db")) as connection:
        connection.execute("ALTER TABLE tags ADD COLUMN must TEXT NOT NULL DEFAULT 'x'")
    assert isinstance(make_client(tracking_uri(Path("out"))), FileClient), "it fills itself"
    with closing(sqlite3.connect("out/mlflow.db")) as connection:
        connection.execute("ALTER TABLE params RENAME COLUMN key TO name")
    assert not isinstance(make_client(tracking_uri(Path("out"))), FileClient)
