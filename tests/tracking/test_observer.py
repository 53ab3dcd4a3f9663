"""MLflow: everything that the documentation names, read back with the client from a real store."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import numpy as np
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run as MlflowRun
from sklearn.metrics import roc_auc_score

from amb.api.records import Evidence, Key
from amb.plugin.manager import Manager
from amb.tracking.metrics import key, text
from tests.conftest import QUICK, run_toy

METRICS = {
    "detection_rate", "interval_low", "interval_high", "bit_error_rate", "claim", "paper_rule", "p_value", "level", "n_sources", "bound", "margin", "tau", "n_trials",
    "n_negatives", "fpr_supported", "p/binomial", "p/permutation", "p/calibrated", "seconds/embed", "seconds/attack",
    "seconds/extract", "peak_memory_mib", "utility/knn", "utility/probe", "utility/miou", "utility/main", "utility_drop", "cached",
    "detection_rate_at_tau",
}  # fmt: skip
TAGS = {
    "kind",
    "group",
    "destroyed",
    "sibling",
    "suspect",
    "status",
    "amb.level",
    "amb.run",
    "digest.model",
    "digest.key",
    "digest.evidence",
    "version.amb",
    "git_commit",
}
PARAMS = {
    "method", "method_spec", "attack", "attack_spec", "suite", "owner", "seed", "alpha", "device", "suspect",
    "method.n_bits",
}  # fmt: skip
SUMMARY = {
    "detection_rate", "detection_rate_at_tau", "worst_innocent_at_tau", "family/none", "family/prune", "attack/none",
    "attack/prune40", "claim", "margin", "worst_innocent", "worst_sibling", "false_claims", "auc", "fpr_supported",
    "tpr_at_fpr_supported", "n_negatives", "n_positives", "n_destroyed", "n_not_judged", "utility/main", "utility/knn",
    "utility/probe", "utility/miou", "utility_drop", "seconds/embed", "seconds/attack", "seconds/extract",
    "peak_memory_mib",
}  # fmt: skip


def runs_of(output: Path) -> tuple[MlflowClient, MlflowRun, dict[str, MlflowRun]]:
    """The run, and its cells by suspect."""
    client, levels = levels_of(output)
    (parent,) = levels["run"]
    (summary,) = levels["summary"]
    assert summary.data.tags["mlflow.parentRunId"] == parent.info.run_id
    children = {run.data.tags["suspect"]: run for run in levels["cell"]}
    assert all(run.data.tags["mlflow.parentRunId"] == summary.info.run_id for run in children.values())
    return client, parent, children


def levels_of(output: Path) -> tuple[MlflowClient, dict[str, list[MlflowRun]]]:
    client = MlflowClient(f"sqlite:///{output / 'mlflow.db'}")
    runs = client.search_runs([client.get_experiment_by_name("amb").experiment_id])
    return client, {
        level: [run for run in runs if run.data.tags["amb.level"] == level] for level in ("run", "summary", "cell")
    }


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
    assert child.data.params["attack"] == "prune40"
    assert child.data.params["attack_spec"] == "prune:amount=0.4"
    assert child.data.params["method"] == "activemark"
    assert children["unmarked owner"].data.tags["sibling"] == "true"
    result = next(each for each in run.results if each.cell.suspect == "prune40")
    assert child.data.metrics["detection_rate"] == result.verdict.detection_rate
    steps = client.get_metric_history(child.info.run_id, "detection_rate_at_tau")
    assert [point.value for point in sorted(steps, key=lambda point: point.step)] == list(result.verdict.curve)
    names = {item.path for item in client.list_artifacts(child.info.run_id)}
    assert names == {"verdict.json", "evidence.npz"}
    assert {item.path for item in client.list_artifacts(parent.info.run_id)} == {"run.json", "profile.png"}


def test_the_summary_is_what_its_cells_amount_to(tracked_manager: Manager, tmp_path: Path) -> None:
    methods = [QUICK, QUICK.replace("n_triggers=8", "n_triggers=9")]
    run = run_toy(tracked_manager, tmp_path, methods=methods, attacks=["prune20", "prune40", "prune80+prune20"])
    client, levels = levels_of(tmp_path)
    by_method = {summary.data.params["method"]: summary for summary in levels["summary"]}
    assert set(by_method) == {"1 activemark n_triggers=8", "2 activemark n_triggers=9"}
    summary = by_method["2 activemark n_triggers=9"]
    assert summary.info.status == "FINISHED"
    cells = [cell for cell in levels["cell"] if cell.data.tags["mlflow.parentRunId"] == summary.info.run_id]
    assert len(cells) == 6
    rates = {cell.data.params["suspect"]: cell.data.metrics["detection_rate"] for cell in cells}
    attacked = ["prune20", "prune40", "prune80+prune20"]
    assert not any(cell.data.tags["destroyed"] == "true" for cell in cells)
    figures = summary.data.metrics
    assert figures["detection_rate"] == pytest.approx(np.mean([rates[name] for name in attacked]))
    assert figures["family/prune"] == pytest.approx((rates["prune20"] + rates["prune40"]) / 2)
    assert figures["attack/prune80_prune20"] == rates["prune80+prune20"]
    assert figures["attack/none"] == rates["unattacked"]
    innocent = [rates["toy/other"], rates["unmarked owner"]]
    assert figures["worst_innocent"] == max(innocent)
    marked = [rates[name] for name in [*attacked, "unattacked"]]
    assert figures["auc"] == pytest.approx(roc_auc_score([1] * 4 + [0] * 2, marked + innocent))
    after = next(each for each in run.embeddings if "n_triggers=9" in each.method).utility_after
    assert figures["utility/main"] == after["probe"]
    points = client.get_metric_history(summary.info.run_id, "detection_rate_at_tau")
    curves = [r.verdict.curve for r in run.results if r.cell.suspect in attacked and "n_triggers=9" in r.cell.method]
    assert [point.value for point in sorted(points, key=lambda point: point.step)] == pytest.approx(np.mean(curves, 0))


def test_the_summary_of_one_method_has_every_documented_figure(tracked_manager: Manager, tmp_path: Path) -> None:
    run_toy(tracked_manager, tmp_path)
    _, levels = levels_of(tmp_path)
    assert set(levels["summary"][0].data.metrics) == SUMMARY


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
    assert all(re.fullmatch(r"[\w\-. :/]+", name) for name in METRICS | SUMMARY | TAGS | PARAMS)


@pytest.mark.parametrize(
    "name", ["<script>alert(1)</script>", "a\"b'c", "ü τ 漢", "x" * 500, "a\x00\x1b[31m\n", "../..", ""]
)
def test_names_of_strangers_become_ones_that_mlflow_allows(name: str) -> None:
    made = key(name)
    assert re.fullmatch(r"[A-Za-z0-9_\-. ]{1,120}", made)
    assert key(name + "y") != made
    assert text(name).isprintable()


def test_every_name_is_documented() -> None:
    documented = (
        (Path(__file__).parents[2] / "docs" / "schema.md").read_text(encoding="utf-8").partition("## MLflow")[2]
    )
    for name in METRICS | SUMMARY | TAGS | PARAMS:
        general = re.sub(r"^(utility|family|attack|version|method)([/.]).*", r"\1\2<", name)
        assert f"`{name}`" in documented or f"`{general}" in documented, name


def test_a_dead_server_warns_once_and_costs_no_result(
    tracked_manager: Manager, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    said: list[str] = []
    run = run_toy(tracked_manager, tmp_path, warnings=said)
    assert not run.failed
    assert len(run.results) == 4
    assert len([line for line in said if "mlflow" in line]) == 1
