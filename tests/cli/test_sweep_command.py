"""`amb sweep` and `amb report` as users run them: real processes, killed ones too, with a real installed plugin."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from amb.errors import AmbError, BadParamsError
from amb.report.layouts import with_tables
from amb.report.tables import tables_of
from amb.results.collect import collect
from amb.results.lines import write_lines
from tests.command import run_amb
from tests.conftest import QUICK
from tests.execution.toy_sweep import write_site

QUICKER = QUICK.replace("steps=150", "steps=10")
"""Enough to have a key; what it detects does not matter here."""
METHOD, _, PARAMS = QUICKER.partition(":")
SWEEP = f"""
suites: toy
methods:
  - {METHOD}: {{{PARAMS.replace("=", ": ")}}}
  - {METHOD}: {{{PARAMS.replace("=", ": ").replace("n_triggers: 8", "n_triggers: 9")}}}
attacks: [prune20, prune40]
seeds: [0, 1]
"""
MILLION = f"""
suites: toy
methods:
- activemark: {{steps: {list(range(1, 1001))}}}
attacks:
- prune: {{amount: {[n / 1000 for n in range(1000)]}}}
"""
TIMES = {"seconds_embed", "seconds_attack", "seconds_extract", "peak_memory_mib", "cached", "run", "sweep"}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an installed plugin in it, as `pip install --target` would leave it."""
    folder = tmp_path_factory.mktemp("site")
    write_site(folder)
    return folder


def environment(site: Path, **more: str) -> dict[str, str]:
    return {
        **os.environ, "PYTHONPATH": str(site), "AMB_DISABLE_PLUGINS": "mlflow", "OMP_NUM_THREADS": "1", "COLUMNS": "200",
        **more,
    }  # fmt: skip


def amb(site: Path, *args: str, **more: str) -> subprocess.CompletedProcess[str]:
    return run_amb(*args, env=environment(site, **more))


def cells(output: str) -> list[dict[str, Any]]:
    """What the layout `cells` says of every cell, times left out, in an order that does not depend on the run."""
    (table,) = tables_of(with_tables(collect(Path(output)), "cells"))
    rows = [dict(zip(table.headers(), row, strict=True)) for row in table.rows]
    return sorted(({k: v for k, v in row.items() if k not in TIMES} for row in rows), key=str)


def entries(output: str, kind: str) -> dict[str, float]:
    return {path.name: path.stat().st_mtime for path in Path(output, "store", kind).iterdir()}


def test_a_sweep_makes_each_embedding_and_each_attacked_model_once_and_workers_agree(site: Path) -> None:
    Path("s.yaml").write_text(SWEEP)
    plan = amb(site, "sweep", "s.yaml", "--dry-run", "--output-dir", "one")
    assert "suite toy, seed 0: 10 cells, 0 of them in the store" in plan.stdout
    assert not Path("one").exists(), "a dry run writes nothing"

    alone = amb(site, "sweep", "s.yaml", "--output-dir", "one")
    assert alone.returncode == 0, alone.stderr
    assert "20 cells of toy (toy/owner)" in alone.stdout
    assert "20 of 20 cells" in alone.stderr
    assert len(entries("one", "embed")) == 2 * 2
    assert len(entries("one", "model")) == 2 * 2 * 2, "two attacks on each of four marked models"
    assert len(cells("one")) == 20

    together = amb(site, "sweep", "s.yaml", "--output-dir", "two", "--jobs", "2", "--quiet")
    assert together.returncode == 0, together.stderr
    assert cells("two") == cells("one")

    plan = amb(site, "sweep", "s.yaml", "--dry-run", "--output-dir", "two")
    assert "20 cells, 20 in the store" in plan.stderr
    markdown = amb(
        site, "report", "--output-dir", "two", "--sweep", "s", "--layout", "paper-table2", "--format", "markdown"
    )
    assert markdown.stdout.count("| positive |") == 3


def test_a_sweep_killed_half_way_goes_on_and_gives_the_same_table(site: Path) -> None:
    Path("s.yaml").write_text(
        SWEEP.replace("prune40]", "prune40, 'slow:seconds=1.5']").replace("seeds: [0, 1]", "seeds: 0")
    )
    command = [sys.executable, "-m", "amb", "sweep", "s.yaml", "--output-dir", "killed", "--jobs", "2"]
    process = subprocess.Popen(command, env=environment(site), stderr=subprocess.DEVNULL)
    wait_for(lambda: len(list(Path("killed/store").glob("evidence/*/record.json"))) >= 3)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    process.kill()
    process.wait()
    wait_for(lambda: not any(running(child) for child in children), seconds=20)
    kinds = [path.name for path in Path("killed/store").iterdir() if not path.name.startswith(".")]
    before = {kind: {n: t for n, t in entries("killed", kind).items() if not n.startswith(".")} for kind in kinds}

    assert amb(site, "sweep", "s.yaml", "--output-dir", "killed").returncode == 0
    for kind in kinds:
        after = entries("killed", kind)
        assert all(after[name] == made for name, made in before[kind].items()), f"a finished {kind} was computed again"
    assert amb(site, "sweep", "s.yaml", "--output-dir", "whole").returncode == 0
    assert cells("killed") == cells("whole")


def running(process: str) -> bool:
    """Whether a process is there and more than a zombie; Linux only, like the test above."""
    status = Path(f"/proc/{process}/stat")
    return status.exists() and status.read_text().rpartition(")")[2].split()[0] != "Z"


def wait_for(condition, seconds: float = 120) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it did not come to that"
        time.sleep(0.05)


def test_a_worker_that_dies_costs_its_cells_only(site: Path) -> None:
    Path("s.yaml").write_text(f"suites: toy\nmethods: ['{QUICKER}']\nattacks: [prune20, deadly, prune40]\n")
    done = amb(site, "sweep", "s.yaml", "--jobs", "2", "--format", "json", "--output-dir", "out")
    assert done.returncode == 1
    found = {cell["suspect"]: cell for cell in json.loads(done.stdout)["cells"]}
    assert found["deadly"]["status"] == "failed"
    assert found["deadly"]["reason"] == (
        "activemark on deadly: its worker died at each of 3 tries, the last time (signal 9)"
    )
    assert {cell["status"] for name, cell in found.items() if name != "deadly"} == {"ok"}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            "suites: toy\nmethods: nope\nseedz: 3\n",
            ["2 mistakes in s.yaml, so nothing was run:", "s.yaml:2: ", "s.yaml:3: "],
        ),
        (
            f"suites: toy\nmethods: activemark\nseeds: [{', '.join(map(str, range(110_000)))}]\n",
            ["holds more than 100000 values"],
        ),
        (
            MILLION,
            ["s.yaml has 1,003,000 cells. If that is meant, say --yes; nothing was run."],
        ),
    ],
    ids=["mistakes", "too many values", "a million cells"],
)
def test_a_bad_sweep_is_refused_before_anything_is_written(site: Path, text: str, says: list[str]) -> None:
    Path("s.yaml").write_text(text)
    done = amb(site, "sweep", "s.yaml", "--output-dir", "out")
    assert done.returncode == 2
    assert all(each in done.stderr for each in says), done.stderr
    assert "Traceback" not in done.stderr
    assert not Path("out").exists()


def test_a_dry_run_of_a_million_cells_counts_them(site: Path) -> None:
    Path("s.yaml").write_text(MILLION)
    done = amb(site, "sweep", "s.yaml", "--dry-run", "--output-dir", "out")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("1,003,000 cells, counted and not looked up in the store: say --yes for that.")


def header(run: str, sweep: str | None = None) -> dict[str, object]:
    return {"id": run, "suite": "toy", "owner": "toy/owner", "sweep": sweep}


def write_run(run: str, rows: list[dict[str, object]], sweep: str | None = None, torn: str = "") -> None:
    folder = Path("amb-results/runs", run)
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps({"schema": 2, "run": header(run, sweep)}))
    (folder / "results.jsonl").write_text(write_lines(rows, run) + torn)


def row(suspect: str, rate: float) -> dict[str, object]:
    common = {"method": "m", "suspect": suspect, "attack": "none", "kind": "positive", "seed": 0, "status": "ok"}
    return {**common, "detection_rate": rate}


def test_the_latest_run_speaks_for_a_cell_and_a_torn_line_is_left_out() -> None:
    write_run("1", [row("a", 0.1), row("b", 0.2)], sweep="s")
    write_run("2", [row("a", 0.9), {**row("b", 0.0), "status": "failed"}], torn='[]\n{"method": "m", "susp')
    Path("amb-results/runs/2").rename("amb-results/runs/best")
    rates = {cell["suspect"]: cell["detection_rate"] for cell in collect(Path("amb-results"))["cells"]}
    assert rates == {"a": 0.9, "b": 0.2}
    assert [cell["detection_rate"] for cell in collect(Path("amb-results"), sweep="s")["cells"]] == [0.1, 0.2]
    assert len(collect(Path("amb-results"), runs=["2"])["cells"]) == 2


def test_results_that_are_not_there_are_said_kindly() -> None:
    with pytest.raises(AmbError, match="There are no results in amb-results") as caught:
        collect(Path("amb-results"))
    assert caught.value.exit_code == 3
    write_run("20260101-a", [], sweep="table2")
    with pytest.raises(BadParamsError, match="There is no sweep 'table' in amb-results. Did you mean table2?"):
        collect(Path("amb-results"), sweep="table")
    with pytest.raises(BadParamsError, match="There is no run '20260101-b'"):
        collect(Path("amb-results"), runs=["20260101-b"])
    for damaged in ("{", '{"run": []}', '{"run": {"id": 1}}'):
        Path("amb-results/runs/20260101-a/run.json").write_text(damaged)
        with pytest.raises(AmbError, match="run.json is damaged"):
            collect(Path("amb-results"))
