"""MLflow: everything that the documentation names, read back with the client from a real store."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import numpy as np
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run as MlflowRun

from amb.plugins import Manager
from amb.records import Evidence, Key
from tests.conftest import run_toy

METRICS = {
    "detection_rate", "interval_low", "interval_high", "bit_error_rate", "owned", "bound", "margin", "tau", "n_trials",
    "n_negatives", "fpr_supported", "p/binomial", "p/permutation", "p/calibrated", "embed_seconds", "attack_seconds",
    "extract_seconds", "peak_memory_mib", "utility/knn", "utility/probe", "utility/miou", "utility_lost", "cached",
    "detection_rate_at_tau",
}  # fmt: skip
TAGS = {
    "kind",
    "group",
    "destroyed",
    "sibling",
    "suspect",
    "status",
    "amb.run",
    "digest.model",
    "digest.key",
    "digest.evidence",
    "version.amb",
    "git_commit",
}
PARAMS = {"method", "attack", "suite", "owner", "seed", "alpha", "device", "suspect", "method.n_bits"}


def runs_of(output: Path) -> tuple[MlflowClient, MlflowRun, dict[str, MlflowRun]]:
    client = MlflowClient(f"sqlite:///{output / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("amb")
    runs = client.search_runs([experiment.experiment_id])
    (parent,) = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    children = {run.data.tags["suspect"]: run for run in runs if run is not parent}
    assert all(run.data.tags["mlflow.parentRunId"] == parent.info.run_id for run in children.values())
    return client, parent, children


def test_every_named_metric_tag_and_parameter_is_there(tracked_manager: Manager, tmp_path: Path) -> None:
    author = ["-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run(["git", "init", "--quiet"], check=True)
    subprocess.run(["git", *author, "commit", "--quiet", "--allow-empty", "-m", "x"], check=True)
    run = run_toy(tracked_manager, tmp_path)
    client, parent, children = runs_of(tmp_path)
    assert parent.info.status == "FINISHED"
    assert set(children) == {"toy/other", "unmarked owner", "unattacked", "prune40"}
    child = children["prune40"]
    assert set(child.data.metrics) == METRICS
    assert set(child.data.tags) >= TAGS
    assert set(child.data.params) >= PARAMS
    assert child.data.params["attack"] == "prune:amount=0.4"
    assert children["unmarked owner"].data.tags["sibling"] == "true"
    result = next(each for each in run.results if each.cell.suspect == "prune40")
    assert child.data.metrics["detection_rate"] == result.verdict.detection_rate
    steps = client.get_metric_history(child.info.run_id, "detection_rate_at_tau")
    assert [point.value for point in sorted(steps, key=lambda point: point.step)] == list(result.verdict.curve)
    names = {item.path for item in client.list_artifacts(child.info.run_id)}
    assert names == {"verdict.json", "evidence.npz", "profile.png"}
    assert {item.path for item in client.list_artifacts(parent.info.run_id)} == {"run.json", "profile.png"}


def test_what_a_killed_process_left_running_is_closed(tracked_manager: Manager, tmp_path: Path) -> None:
    run = run_toy(tracked_manager, tmp_path)
    client, parent, _ = runs_of(tmp_path)
    host, _, own = parent.data.tags["amb.process"].partition(":")
    gone = subprocess.Popen(["true"])
    gone.wait()
    mine = {"dead": f"{host}:{gone.pid}", "alive": f"{host}:{own}", "elsewhere": f"not-{host}:{gone.pid}"}
    left = {
        name: client.create_run(parent.info.experiment_id, tags={"amb.process": tag}).info.run_id
        for name, tag in mine.items()
    }
    run_toy(tracked_manager, tmp_path)
    statuses = {name: client.get_run(run_id).info.status for name, run_id in left.items()}
    assert statuses == {"dead": "KILLED", "alive": "RUNNING", "elsewhere": "RUNNING"}
    assert not run.failed


def test_no_key_reaches_mlflow(tracked_manager: Manager, tmp_path: Path) -> None:
    run_toy(tracked_manager, tmp_path)
    key = Key.load(next((tmp_path / "store" / "embed").glob("*/key.safetensors")))
    weights = key.tensors["decoder.0.weight"].tobytes()[:64]
    assert not list((tmp_path / "mlartifacts").rglob("*key*"))
    for path in [tmp_path / "mlflow.db", *(tmp_path / "mlartifacts").rglob("*")]:
        assert not path.is_file() or weights not in path.read_bytes()
    files = list((tmp_path / "mlartifacts").rglob("evidence.npz"))
    assert files
    for file in files:
        public = Evidence.load(file)
        assert not public.expected.any(), "messages are part of the key"
        assert not np.array_equal(public.observed, key.tensors["messages"])


def test_names_are_ones_that_mlflow_allows() -> None:
    assert all(re.fullmatch(r"[\w\-. :/]+", name) for name in METRICS | TAGS | PARAMS)


def test_a_dead_server_warns_once_and_costs_no_result(
    tracked_manager: Manager, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    said: list[str] = []
    run = run_toy(tracked_manager, tmp_path, warnings=said)
    assert not run.failed
    assert len(run.results) == 4
    assert len([line for line in said if "mlflow" in line]) == 1
