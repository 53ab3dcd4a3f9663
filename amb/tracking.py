"""MLflow tracking, as an observer of the lifecycle hooks: one parent run per `amb run`, one child per cell.

The store is the truth; running the same command again replays everything from it into MLflow. Only the parent
process writes, through MlflowClient. A key never gets here: only its digest.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from amb.hookspecs import hookimpl

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from amb.engine import Run
    from amb.records import Cell, CellResult

EXPERIMENT = "amb"
_NOTE = "mlflow"
_PROCESS = "amb.process"
"""Tag: host and number of the process that writes the run."""


@dataclass(frozen=True)
class _Session:
    """What the hooks of one run share; kept in `run.notes`."""

    client: MlflowClient
    experiment: str
    parent: str


@hookimpl
def amb_run_started(run: Run) -> None:
    client, experiment = _connect(run)
    tags = {
        "mlflow.runName": run.id,
        "amb.run": run.id,
        _PROCESS: _this_process(),
        "suite": run.plan.suite.canonical(),
        "owner": run.plan.owner,
        **_sweep_tag(run),
        **_origin(run),
    }
    _close_abandoned(client, experiment)
    parent = client.create_run(experiment, tags=tags).info.run_id
    run.notes[_NOTE] = _Session(client, experiment, parent)
    run.links["mlflow"] = _how_to_look(run)
    methods = " ".join(method.canonical() for method in run.plan.methods)
    params = {"suite": run.plan.suite.canonical(), "owner": run.plan.owner, "methods": methods, "seed": run.plan.seed}
    _log(client, parent, {}, params)


@hookimpl
def amb_cell_finished(run: Run, cell: Cell, result: CellResult) -> None:
    with _session(run) as session:
        if session is None:
            return
        client = session.client
        name = f"{cell.suspect} · {cell.method}"
        tags = {"mlflow.parentRunId": session.parent, "mlflow.runName": name, **_cell_tags(run, result)}
        child = client.create_run(session.experiment, tags=tags).info.run_id
        curve = result.verdict.curve if result.verdict else ()
        _log(client, child, cell_metrics(result), _cell_params(run, cell), curve)
        if result.verdict:
            client.log_dict(child, result.to_json(), "verdict.json")
        if result.evidence:
            _log_evidence(client, child, result.evidence)
        if run.profile_figure:
            client.log_artifact(child, str(run.profile_figure))
        client.set_terminated(child, "FAILED" if result.status == "failed" else "FINISHED")


@hookimpl
def amb_run_finished(run: Run) -> None:
    from amb.document import document

    with _session(run) as session:
        if session is None:
            return
        client, parent = session.client, session.parent
        client.log_dict(parent, document(run), "run.json")
        if run.profile_figure:
            client.log_artifact(parent, str(run.profile_figure))
        complete = len(run.results) == len(run.plan.cells())
        client.set_terminated(parent, "FAILED" if run.failed else "FINISHED" if complete else "KILLED")


def tracking_uri(output: Path) -> str:
    """`MLFLOW_TRACKING_URI`, or an SQLite file in the output folder."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{output.resolve() / 'mlflow.db'}"


def _how_to_look(run: Run) -> str:
    """A command or an address that shows the run."""
    uri = tracking_uri(run.output)
    return uri if uri.startswith("http") else f"mlflow ui --backend-store-uri {uri}"


def cell_metrics(result: CellResult) -> dict[str, float]:
    """Every figure of a cell by its MLflow name; the detection curve is apart, stepped by tau."""
    figures: dict[str, float | None] = {
        **{f"{name}_seconds": value for name, value in result.seconds.items()},
        **{f"utility/{name}": value for name, value in result.utility.items()},
        "utility_lost": result.utility_lost,
        "peak_memory_mib": result.peak_memory_mib,
        "cached": float(result.cached),
    }
    verdict = result.verdict
    if verdict:
        figures |= {
            "detection_rate": verdict.detection_rate,
            "interval_low": verdict.interval[0],
            "interval_high": verdict.interval[1],
            "bit_error_rate": verdict.bit_error_rate,
            "owned": float(verdict.owned),
            "bound": verdict.bound,
            "margin": verdict.margin,
            "tau": verdict.tau,
            "n_trials": verdict.n_trials,
            "n_negatives": verdict.n_negatives,
            "fpr_supported": verdict.fpr_supported,
            **{f"p/{name}": value for name, value in verdict.p_values.items()},
        }
    return {name: value for name, value in figures.items() if value is not None and math.isfinite(value)}


def _log(
    client: MlflowClient,
    run_id: str,
    metrics: Mapping[str, float],
    params: Mapping[str, Any],
    curve: tuple[float, ...] = (),
) -> None:
    """One batch: metrics, parameters, and R(tau) as a metric stepped by tau (the paper's Fig. 3)."""
    from mlflow.entities import Metric, Param

    now = int(time.time() * 1000)
    points = [Metric(name, value, now, 0) for name, value in metrics.items()]
    points += [Metric("detection_rate_at_tau", value, now, tau) for tau, value in enumerate(curve)]
    client.log_batch(run_id, metrics=points, params=[Param(name, str(value)[:6000]) for name, value in params.items()])


def _log_evidence(client: MlflowClient, run_id: str, path: Path) -> None:
    """Which symbols were wrong, not what they were: the messages are part of the key and stay in the store."""
    import tempfile

    import numpy as np

    from amb.records import Evidence

    evidence = Evidence.load(path)
    wrong = (evidence.expected != evidence.observed).astype(np.int64)
    with tempfile.TemporaryDirectory() as folder:
        public = Path(folder) / "evidence.npz"
        Evidence(np.zeros_like(wrong), wrong, evidence.alphabet).save(public)
        client.log_artifact(run_id, str(public))


def _cell_params(run: Run, cell: Cell) -> dict[str, Any]:
    """The canonical components, and every parameter of the method under its own name."""
    method = next(each for each in run.plan.methods if each.canonical() == cell.method)
    own = {f"method.{name}": value for name, value in method.model_dump(mode="json").items()}
    return {
        "method": cell.method,
        "attack": cell.attack,
        "suspect": cell.suspect,
        "suite": run.plan.suite.canonical(),
        "owner": run.plan.owner,
        "seed": cell.seed,
        "alpha": run.plan.alpha,
        "device": run.plan.device,
        **own,
    }


def _cell_tags(run: Run, result: CellResult) -> dict[str, str]:
    tags = {
        "amb.run": run.id,
        _PROCESS: _this_process(),
        **_sweep_tag(run),
        "kind": result.cell.kind,
        "group": result.cell.group,
        "sibling": str(result.cell.sibling).lower(),
        "destroyed": str(result.destroyed).lower(),
        "suspect": result.cell.suspect,
        "status": result.status,
        **{f"digest.{name}": digest for name, digest in result.digests.items()},
        **_origin(run),
    }
    return tags | ({"reason": result.reason[:5000]} if result.reason else {})


def _sweep_tag(run: Run) -> dict[str, str]:
    return {"amb.sweep": run.sweep} if run.sweep else {}


def _this_process() -> str:
    import socket

    return f"{socket.gethostname()}:{os.getpid()}"


def _close_abandoned(client: MlflowClient, experiment: str) -> None:
    """A killed process leaves its runs RUNNING: close those of this machine whose process is gone."""
    host = _this_process().partition(":")[0]
    ours = f"attributes.status = 'RUNNING' and tags.`{_PROCESS}` LIKE '{host}:%'"
    for run in client.search_runs([experiment], ours, max_results=1000):
        if not _alive(int(run.data.tags[_PROCESS].rpartition(":")[2])):
            client.set_terminated(run.info.run_id, "KILLED")


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # it is somebody else's
        return True
    return True


def _origin(run: Run) -> dict[str, str]:
    """Versions and commit."""
    versions = {f"version.{name}": value for name, value in run.facts["versions"].items()}
    commit = run.facts.get("git_commit")
    return versions | ({"git_commit": commit, "mlflow.source.git.commit": commit} if commit else {})


@contextmanager
def _session(run: Run) -> Iterator[_Session | None]:
    """The run's session; None where MLflow failed before, so that one failure is said once and waits once."""
    session = run.notes.get(_NOTE)
    try:
        yield session
    except Exception:
        run.notes.pop(_NOTE, None)
        raise


def _connect(run: Run) -> tuple[MlflowClient, str]:
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
            _write_ahead(Path(uri.removeprefix("sqlite:///")))
    return client, str(created)


def _write_ahead(database: Path) -> None:
    """Write-ahead logging: a third of the time per cell, and readers do not block the run."""
    import sqlite3

    with sqlite3.connect(database) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
