"""MLflow tracking, as an observer of the lifecycle hooks: a run, in it a summary per method, in that its cells.

The store is the truth; running the same command again replays everything from it into MLflow. Only the parent
process writes, through MlflowClient. A key never gets here: only its digest. What is told is in `amb/tracking/metrics.py`.
"""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from amb.plugin.specs import hookimpl
from amb.results.records import record_of
from amb.tracking.metrics import (
    Curves,
    cell_curves,
    cell_metrics,
    cell_params,
    cell_tags,
    labels,
    run_tags,
    summary_curves,
    summary_metrics,
    summary_params,
    text,
)

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from amb.api.records import Cell, CellResult
    from amb.api.run import Run

EXPERIMENT = "amb"
_NOTE = "mlflow"
_PROCESS = "amb.process"
"""Tag: host and number of the process that writes the run."""


_BATCH: Final = 1000
"""Most metrics that MLflow takes in one call."""


@dataclass(frozen=True)
class _Session:
    """What the hooks of one run share; kept in `run.notes`."""

    client: MlflowClient
    experiment: str
    parent: str
    summaries: dict[str, str] = field(default_factory=dict)
    """MLflow's id of the summary of each method whose cells are coming in."""


@hookimpl
def amb_run_started(run: Run) -> None:
    client, experiment = _connect_client(run)
    _close_abandoned(client, experiment)
    asked = {"suite": run.plan.suite.canonical(), "owner": run.plan.owner}
    parent = _create_run(client, experiment, run.id, {**run_tags(run, "run"), **asked})
    run.notes[_NOTE] = _Session(client, experiment, parent)
    run.links["mlflow"] = _describe_look(run)
    methods = " ".join(method.canonical() for method in run.plan.methods)
    _log_figures(client, parent, {}, {**asked, "methods": methods, "seed": run.plan.seed})


@hookimpl
def amb_cell_finished(run: Run, cell: Cell, result: CellResult) -> None:
    with _open_session(run) as session:
        if session is None:
            return
        client, name = session.client, f"{cell.suspect} · {labels(run.plan.methods)[cell.method]}"
        record = record_of(result, run)
        above = _find_summary(session, run, cell.method)
        child = _create_run(client, session.experiment, name, cell_tags(run, record), above)
        _log_figures(client, child, cell_metrics(record), cell_params(run, record), cell_curves(record))
        if result.verdict:
            client.log_dict(child, result.to_json(), "verdict.json")
        if result.evidence:
            _log_evidence(client, child, result.evidence)
        if run.profile_figure:
            client.log_artifact(child, str(run.profile_figure))
        client.set_terminated(child, "FAILED" if result.status == "failed" else "FINISHED")
        _close_summaries(session, run, only_complete=True)


@hookimpl
def amb_run_finished(run: Run) -> None:
    from amb.results.document import document

    with _open_session(run) as session:
        if session is None:
            return
        client, parent = session.client, session.parent
        _close_summaries(session, run)
        client.log_dict(parent, document(run), "run.json")
        if run.profile_figure:
            client.log_artifact(parent, str(run.profile_figure))
        complete = len(run.results) == len(run.plan.cells())
        client.set_terminated(parent, "FAILED" if run.failed else "FINISHED" if complete else "KILLED")


def _find_summary(session: _Session, run: Run, method: str) -> str:
    """The run above the cells of a method, made with the first of them; its figures come with the last."""
    if method not in session.summaries:
        name = f"{labels(run.plan.methods)[method]} · {run.plan.owner} · seed {run.plan.seed}"
        made = _create_run(session.client, session.experiment, name, run_tags(run, "summary"), session.parent)
        session.summaries[method] = made
        _log_figures(session.client, made, {}, summary_params(run, method))
    return session.summaries[method]


def _close_summaries(session: _Session, run: Run, *, only_complete: bool = False) -> None:
    """Write the figures of methods whose cells are all there, or of all methods at the end of the run."""
    for method, summary in list(session.summaries.items()):
        results = [result for result in run.results if result.cell.method == method]
        complete = len(results) == len(run.plan.suspects)
        if complete or not only_complete:
            cells = [record_of(result, run) for result in results]
            embedding = next((each for each in run.embeddings if each.method == method), None)
            _log_figures(session.client, summary, summary_metrics(cells, embedding), {}, summary_curves(cells))
            failed = any(result.status == "failed" for result in results)
            session.client.set_terminated(summary, "FAILED" if failed else "FINISHED" if complete else "KILLED")
            del session.summaries[method]


def tracking_uri(output: Path) -> str:
    """`MLFLOW_TRACKING_URI`, or an SQLite file in the output folder."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{output.resolve() / 'mlflow.db'}"


def _describe_look(run: Run) -> str:
    """A command or an address that shows the run."""
    uri = tracking_uri(run.output)
    if is_remote(uri):
        return uri
    words = ["amb", "ui", "--output-dir", str(run.output), *(["--sweep", run.sweep] if run.sweep else [])]
    return shlex.join(words)


def is_remote(uri: str) -> bool:
    """Whether tracking data lies behind a server that somebody runs already."""
    return uri.startswith(("http://", "https://"))


def _create_run(
    client: MlflowClient, experiment: str, name: str, tags: Mapping[str, str], above: str | None = None
) -> str:
    """A new MLflow run below another; its id."""
    nested = {"mlflow.parentRunId": above} if above else {}
    own = {"mlflow.runName": text(name)[:500], _PROCESS: _name_process(), **nested}
    made = client.create_run(experiment, tags={**{name: text(value) for name, value in tags.items()}, **own})
    return str(made.info.run_id)


def _log_figures(
    client: MlflowClient,
    run_id: str,
    metrics: Mapping[str, float],
    params: Mapping[str, Any],
    curves: Curves | None = None,
) -> None:
    """Metrics, parameters, and curves as metrics stepped by tau; one call where MLflow takes as much at once."""
    from mlflow.entities import Metric, Param

    now = int(time.time() * 1000)
    points = [Metric(name, value, now, 0) for name, value in metrics.items()]
    points += [
        Metric(name, value, now, tau) for name, curve in (curves or {}).items() for tau, value in enumerate(curve)
    ]
    client.log_batch(
        run_id, metrics=points[:_BATCH], params=[Param(name, text(value)) for name, value in params.items()]
    )
    for start in range(_BATCH, len(points), _BATCH):
        client.log_batch(run_id, metrics=points[start : start + _BATCH])


def _log_evidence(client: MlflowClient, run_id: str, path: Path) -> None:
    """Which symbols were wrong, not what they were: the messages are part of the key and stay in the store."""
    import tempfile

    import numpy as np

    from amb.api.records import Evidence

    evidence = Evidence.load(path)
    wrong = (evidence.expected != evidence.observed).astype(np.int64)
    with tempfile.TemporaryDirectory() as folder:
        public = Path(folder) / "evidence.npz"
        Evidence(np.zeros_like(wrong), wrong, evidence.alphabet).save(public)
        client.log_artifact(run_id, str(public))


def _name_process() -> str:
    import socket

    return f"{socket.gethostname()}:{os.getpid()}"


def _close_abandoned(client: MlflowClient, experiment: str) -> None:
    """A killed process leaves its runs RUNNING: close those of this machine whose process is gone."""
    host = _name_process().partition(":")[0]
    ours = f"attributes.status = 'RUNNING' and tags.`{_PROCESS}` LIKE '{host}:%'"
    for run in client.search_runs([experiment], ours, max_results=1000):
        if not _is_alive(int(run.data.tags[_PROCESS].rpartition(":")[2])):
            client.set_terminated(run.info.run_id, "KILLED")


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # it is somebody else's
        return True
    return True


@contextmanager
def _open_session(run: Run) -> Iterator[_Session | None]:
    """The run's session; None where MLflow failed before, so that one failure is said once and waits once."""
    session = run.notes.get(_NOTE)
    try:
        yield session
    except Exception:
        run.notes.pop(_NOTE, None)
        raise


def _connect_client(run: Run) -> tuple[MlflowClient, str]:
    """A client and the id of the experiment, created once under a lock."""
    import logging

    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")  # a dead server must not hold a run up
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "ERROR")
    logging.getLogger("alembic").setLevel(logging.ERROR)
    from filelock import FileLock
    from mlflow import MlflowClient

    uri = tracking_uri(run.output)
    run.output.mkdir(parents=True, exist_ok=True)
    with FileLock(run.output / ".mlflow.lock"):  # two processes that create one database break it
        client = MlflowClient(uri)
        experiment = client.get_experiment_by_name(EXPERIMENT)
        if experiment:
            return client, str(experiment.experiment_id)
        local = uri.startswith("sqlite:///")
        artifacts = (run.output / "mlartifacts").resolve().as_uri() if local else None
        created = client.create_experiment(EXPERIMENT, artifact_location=artifacts)
        if local:
            _enable_write_ahead(Path(uri.removeprefix("sqlite:///")))
    return client, str(created)


def _enable_write_ahead(database: Path) -> None:
    """Write-ahead logging: a third of the time per cell, and readers do not block the run."""
    import sqlite3

    with sqlite3.connect(database) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
