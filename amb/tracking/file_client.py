"""A client of MLflow's SQLite file that writes the run of a cell in one transaction, when it is whole.

Through MLflow's own calls a cell is three transactions and some hundred objects, which takes longer than many a cell. So
far as the file has the tables that are known here, a cell's rows are written as MLflow writes them; where it has others,
and for whatever is no cell, MLflow's calls are made.
"""

from __future__ import annotations

import math
import shutil
import sqlite3
import sys
import uuid
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from mlflow import MlflowClient
from mlflow.entities import LifecycleStage, Metric, Param, Run, RunData, RunInfo, RunStatus, RunTag

CELL: Final = ("amb.level", "cell")
"""Tag of the runs that are written at once."""
_TABLES: Final[Mapping[str, tuple[str, ...]]] = {
    "runs": (
        "run_uuid", "name", "source_type", "source_name", "entry_point_name", "user_id", "status", "start_time", "end_time",
        "source_version", "lifecycle_stage", "artifact_uri", "experiment_id",
    ),
    "tags": ("key", "value", "run_uuid"),
    "params": ("key", "value", "run_uuid"),
    "metrics": ("key", "value", "timestamp", "step", "is_nan", "run_uuid"),
    "latest_metrics": ("key", "value", "timestamp", "step", "is_nan", "run_uuid"),
}  # fmt: skip
"""The columns that are written; another may be there if it may stay empty."""
_LARGEST: Final = sys.float_info.max
"""What MLflow writes for infinity."""


def open_file_client(uri: str, database: Path) -> MlflowClient:
    """A client of a file that quickly writes cells, where its tables are known; else MLflow's own."""
    return FileClient(uri, database) if _are_known(database) else MlflowClient(uri)


@dataclass
class _Cell:
    """A run that is not written yet."""

    run: Run
    folder: Path
    metrics: dict[tuple[Any, ...], Metric] = field(default_factory=dict)
    params: dict[str, str] = field(default_factory=dict)


class FileClient(MlflowClient):  # type: ignore[misc]
    """Keeps the run of a cell until it is terminated; one that never is was never there."""

    def __init__(self, uri: str, database: Path) -> None:
        super().__init__(uri)
        self._database = database
        self._cell: _Cell | None = None
        self._locations: dict[str, str] = {}

    def create_run(
        self,
        experiment_id: str,
        start_time: int | None = None,
        tags: dict[str, Any] | None = None,
        run_name: str | None = None,
    ) -> Run:
        """As MLflow's; a cell's is kept."""
        self._drop()
        if start_time is None or not tags or tags.get(CELL[0]) != CELL[1]:
            return super().create_run(experiment_id, start_time, tags, run_name)
        run_id = uuid.uuid4().hex
        artifacts = f"{self._find_location(experiment_id)}/{run_id}/artifacts"
        name = run_name or str(tags["mlflow.runName"])
        info = RunInfo(
            run_id, experiment_id, "unknown", RunStatus.to_string(RunStatus.RUNNING), start_time, None,
            LifecycleStage.ACTIVE, artifacts, run_name=name,
        )  # fmt: skip
        told = [RunTag(key, str(value)) for key, value in {**tags, "mlflow.runName": name}.items()]
        self._cell = _Cell(Run(info, RunData(tags=told)), Path(unquote(urlsplit(artifacts).path)))
        return self._cell.run

    def log_batch(
        self,
        run_id: str,
        metrics: Sequence[Metric] = (),
        params: Sequence[Param] = (),
        tags: Sequence[RunTag] = (),
        synchronous: bool | None = None,
    ) -> Any:
        """As MLflow's."""
        cell = self._find(run_id)
        if cell is None:
            return super().log_batch(run_id, metrics, params, tags, synchronous)
        cell.metrics |= {(each.key, each.timestamp, each.step, each.value): each for each in metrics}
        cell.params |= {each.key: each.value for each in params}
        cell.run.data.tags.update({each.key: each.value for each in tags})
        return None

    def set_terminated(self, run_id: str, status: str | None = None, end_time: int | None = None) -> None:
        """As MLflow's; writes a cell."""
        cell = self._find(run_id)
        if cell is None:
            super().set_terminated(run_id, status, end_time)
            return
        with self._connection as transaction:
            for table, rows in _list_rows(cell, status or "FINISHED", end_time).items():
                columns = _TABLES[table]
                places = ", ".join("?" * len(columns))
                transaction.executemany(f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({places})", rows)  # noqa: S608 (constants)
        self._cell = None

    @cached_property
    def _connection(self) -> sqlite3.Connection:
        """Its jobs come one after the other, from threads that may differ."""
        connection = sqlite3.connect(self._database, timeout=30, check_same_thread=False)
        connection.execute("PRAGMA synchronous = NORMAL")  # whole after a crash; what it lacks is told again
        connection.execute("PRAGMA foreign_keys = ON")
        return connection

    def _find(self, run_id: str) -> _Cell | None:
        return self._cell if self._cell and self._cell.run.info.run_id == run_id else None

    def _drop(self) -> None:
        """A cell that was given up half-way leaves no files."""
        if self._cell is not None:
            shutil.rmtree(self._cell.folder.parent, ignore_errors=True)
            self._cell = None

    def _find_location(self, experiment_id: str) -> str:
        if experiment_id not in self._locations:
            self._locations[experiment_id] = str(self.get_experiment(experiment_id).artifact_location).rstrip("/")
        return self._locations[experiment_id]


def _list_rows(cell: _Cell, status: str, end_time: int | None) -> dict[str, list[tuple[Any, ...]]]:
    """What MLflow writes of a run, by table, in the order of `_TABLES`."""
    info = cell.run.info
    own = (
        info.run_id, info.run_name, "UNKNOWN", "", "", info.user_id, status, info.start_time, end_time, "",
        info.lifecycle_stage, info.artifact_uri, int(info.experiment_id),
    )  # fmt: skip
    metrics = [(each.key, *_spell(each.value), each.timestamp, each.step) for each in cell.metrics.values()]
    latest: dict[str, tuple[Any, ...]] = {}
    for key, value, is_nan, timestamp, step in metrics:
        rank = (step, timestamp, value)
        if key not in latest or rank > latest[key][0]:
            latest[key] = (rank, (key, value, timestamp, step, is_nan, info.run_id))
    return {
        "runs": [own],
        "tags": [(key, value, info.run_id) for key, value in cell.run.data.tags.items()],
        "params": [(key, value, info.run_id) for key, value in cell.params.items()],
        "metrics": [
            (key, value, timestamp, step, is_nan, info.run_id) for key, value, is_nan, timestamp, step in metrics
        ],
        "latest_metrics": [row for _, row in latest.values()],
    }


def _spell(value: float) -> tuple[float, bool]:
    """A metric's value as MLflow writes it, and whether it is none."""
    if math.isnan(value):
        return 0.0, True
    return max(-_LARGEST, min(_LARGEST, float(value))), False


def _are_known(database: Path) -> bool:
    """Whether the file's tables have our columns, and no other that has to be filled."""
    with closing(sqlite3.connect(f"{database.resolve().as_uri()}?mode=ro", uri=True, timeout=30)) as connection:
        for table, ours in _TABLES.items():
            found = list(connection.execute(f"PRAGMA table_info({table})"))
            filled = {name for _, name, _, is_needed, default, _ in found if is_needed and default is None}
            if not set(ours) <= {row[1] for row in found} or not filled <= set(ours):
                return False
    return True
