"""Runs with made-up verdicts that go through the hooks of results and tracking: real files, nothing computed."""

from __future__ import annotations

import json
import time
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Run as MlflowRun

from amb.api.records import CellResult, Evidence, Verdict
from amb.api.run import Run
from amb.evaluation.verdict import decide
from amb.execution.planning import make_plan
from amb.execution.provenance import find_provenance, name_run
from amb.plugin.manager import Manager
from amb.tracking.connection import import_mlflow
from tests.conftest import QUICK

METHODS = [QUICK, QUICK.replace("n_triggers=8", "n_triggers=9")]


def start_run(manager: Manager, output: Path) -> Run:
    """A run of two methods on four suspects, that has begun."""
    plan = make_plan(manager.registry, suite="toy", methods=METHODS, attacks=["prune40"])
    return Run(name_run(plan), plan, output, find_provenance(manager.plugins))


def go_through(manager: Manager, run: Run, n_cells: int | None = None, *, finish: bool = True) -> list[str]:
    """Its cells as the engine would tell of them; the warnings."""
    said = manager.notify("amb_run_started", run=run)
    for cell in run.plan.cells()[:n_cells]:
        result = CellResult(
            cell, "ok", verdict=make_verdict(len(run.results)), utility={"knn": 0.5}, seconds={"embed": 1.0}
        )
        run.add(result)
        said += manager.notify("amb_cell_finished", run=run, cell=cell, result=result)
    return said + (manager.notify("amb_run_finished", run=run) if finish else [])


@cache
def make_verdict(n_right: int) -> Verdict:
    """So many of eight trials are detected."""
    import numpy as np

    expected = np.ones((8, 4), dtype=np.int64)
    observed = np.zeros_like(expected)
    observed[:n_right] = 1
    return decide(Evidence(expected, observed), [], 1, 0.05)


def run_made_up(manager: Manager, output: Path) -> tuple[Run, list[str], float]:
    """A whole run, the warnings, and the seconds that it took."""
    run = start_run(manager, output)
    for n_right in range(len(run.plan.cells())):
        make_verdict(n_right)  # whose time is none of tracking's
    import_mlflow()
    started = time.monotonic()
    said = go_through(manager, run)
    return run, said, time.monotonic() - started


def find_tracked(uri: str) -> list[MlflowRun]:
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("amb")
    return list(client.search_runs([experiment.experiment_id], max_results=5000)) if experiment else []


def find_faults(output: Path, uri: str) -> list[str]:
    """What MLflow lacks of the results in a folder, has twice, or calls RUNNING."""
    folders = [path.parent for path in (output / "runs").glob("*/run.json")]
    ours = {folder.name for folder in folders}
    tracked = [each for each in find_tracked(uri) if each.data.tags["amb.run"] in ours]
    faults = [f"{each.info.run_name} is RUNNING" for each in tracked if each.info.status == "RUNNING"]
    known = Counter(_name_tracked(each) for each in tracked)
    rates = {_name_tracked(each): each.data.metrics.get("detection_rate") for each in tracked}
    wanted: dict[tuple[str, ...], Any] = {}
    for folder in folders:
        wanted[("run", folder.name)] = None
        path = folder / "results.jsonl"
        for line in path.read_text().splitlines() if path.exists() else []:
            cell = json.loads(line)
            wanted[("summary", folder.name, cell["method"])] = None
            wanted[("cell", folder.name, cell["method"], cell["suspect"])] = cell
    for name, cell in wanted.items():
        if known[name] != 1:
            faults.append(f"{name} is there {known[name]} times")
        elif cell and rates[name] != cell["detection_rate"]:
            faults.append(f"{name} has the rate {rates[name]}")
    return faults + [f"{name} is not in the results" for name in known if name not in wanted and name[0] != "run"]


def _name_tracked(run: MlflowRun) -> tuple[str, ...]:
    tags, params = run.data.tags, run.data.params
    name = (tags["amb.level"], tags["amb.run"], params.get("method_spec", ""), tags.get("suspect", ""))
    return tuple(part for part in name if part)
