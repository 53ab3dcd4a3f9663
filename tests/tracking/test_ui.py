"""`amb ui` as users run it: a real sweep in a real database, MLflow's own server as a real process, and its end."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qs
from urllib.request import Request, urlopen

import pytest

from amb.api.run import Run
from amb.cli import main
from amb.errors import AmbError
from amb.execution.engine import Engine
from amb.execution.planning import make_plan
from amb.execution.provenance import find_provenance, name_run
from amb.execution.steps import Steps
from amb.plugin import manager as plugins
from amb.runtime.progress import Silent
from amb.store.store import Store
from amb.tracking import links as pages
from amb.tracking import observer as tracking
from amb.tracking import views
from amb.tracking.metrics import SUPERSEDED
from amb.tracking.server import QUIET_NAME, pick_port, serving
from amb.tracking.tracked_run import describe_method, labels
from tests.conftest import QUICK, ToyPlugin

QUICKER = QUICK.replace("steps=150", "steps=10")
METHODS = [QUICKER, QUICKER.replace("n_triggers=8", "n_triggers=9")]


def track_sweep(output: Path, name: str, times: int = 1) -> None:
    """A sweep of 2 methods x 4 suspects, tracked `times` times, as by the same command again."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AMB_DISABLE_PLUGINS", "mlflow")
        plugins.manager.cache_clear()
        manager = plugins.manager()
        manager.register(ToyPlugin(), "toy")
        manager.register(tracking, "mlflow-again")
        for _ in range(times):
            plan = make_plan(manager.registry, suite="toy", methods=METHODS, attacks=["prune40"])
            run = Run(name_run(plan), plan, output, find_provenance(manager.plugins), name)
            progress = SimpleNamespace(track=Silent().track, say=print)
            store = Store(output / "store", print)
            Engine(run, Steps(plan, store, progress, manager.registry).do, store, manager, progress).execute()
    plugins.manager.cache_clear()


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ui") / "a folder, spaced"
    track_sweep(folder, "demo", times=2)
    track_sweep(folder, "other")
    return folder


def amb(capsys: pytest.CaptureFixture[str], *args: str) -> tuple[int, str, str]:
    """The command in this process: exit code, standard output, standard error."""
    with pytest.raises(SystemExit) as ended:
        main(["ui", "--no-browser", *args])
    return ended.value.code, *capsys.readouterr()


class Ui:
    """`amb ui` in the background, and what it has printed."""

    def __init__(self, *args: str) -> None:
        command = [sys.executable, "-m", "amb", "ui", "--no-browser", *args]
        heeding = partial(
            signal.signal, signal.SIGINT, signal.SIG_DFL
        )  # a shell's background jobs are born ignoring it
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, preexec_fn=heeding)  # noqa: PLW1509
        lines = [self.process.stdout.readline().rstrip("\n") for _ in range(5)]
        self.address = lines[0]
        self.port = self.address.rpartition(":")[2]
        self.pages = dict(line.split(maxsplit=1) for line in lines[1:])
        self.quiet = f"http://{QUIET_NAME}:{self.port}"

    def stop(self, number: int = signal.SIGINT) -> int:
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(timeout=30)


def processes(port: str) -> list[str]:
    """The processes of a server on a port, without `amb ui` itself; Linux only."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().decode().split("\0")
        except OSError:
            continue
        if "--port" in words and words[words.index("--port") + 1] == port and "amb" not in words:
            found.append(folder.name)
    return found


@pytest.fixture(scope="module")
def ui(output: Path) -> Iterator[Ui]:
    started = Ui("--sweep", "demo", "--output-dir", str(output))
    yield started
    started.stop()


def ask(ui: Ui, path: str, body: dict[str, Any] | None = None) -> Any:
    data = json.dumps(body).encode() if body else None
    request = Request(f"{ui.address}{path}", data, {"Content-Type": "application/json"})
    with urlopen(request, timeout=30) as answer:
        text = answer.read().decode()
    return json.loads(text) if text.startswith("{") else text


def test_the_server_is_mlflows_own_on_loopback_and_healthy(ui: Ui) -> None:
    assert ui.address.startswith("http://127.0.0.1:")
    assert ask(ui, "/health") == "OK"
    port = int(ui.address.rpartition(":")[2])
    with socket.socket() as probe, pytest.raises(OSError):
        probe.bind(("127.0.0.1", port))
    assert list(ui.pages) == ["comparison", "methods", "cells", "attacks"]


def test_the_pages_hold_the_sweep_and_only_its_latest_answers(ui: Ui) -> None:
    query = parse_qs(ui.pages["comparison"].partition("?")[2])
    ids = json.loads(query["runs"][0])
    found = [ask(ui, f"/api/2.0/mlflow/runs/get?run_id={each}")["run"] for each in ids]
    tags = [{tag["key"]: tag["value"] for tag in run["data"]["tags"]} for run in found]
    assert [tag["amb.level"] for tag in tags] == ["summary", "summary"]
    assert {tag["amb.sweep"] for tag in tags} == {"demo"}
    key = parse_qs(ui.pages["cells"].partition("?")[2])["viewStateShareKey"][0]
    assert key == "amb-cell-demo"
    (experiment,) = json.loads(query["experiments"][0])
    kept = ask(ui, f"/api/2.0/mlflow/experiments/get?experiment_id={experiment}")["experiment"]["tags"]
    (view,) = [json.loads(tag["value"]) for tag in kept if tag["key"] == f"mlflow.sharedViewState.{key}"]
    asked = {"experiment_ids": [experiment], "filter": view["searchFilter"], "order_by": [f"{view['orderByKey']} DESC"]}
    cells = ask(ui, "/api/2.0/mlflow/runs/search", asked)["runs"]
    assert len(cells) == 2 * 4, "two methods on four suspects, each once although tracked twice"
    rates = [next(m["value"] for m in cell["data"]["metrics"] if m["key"] == "detection_rate") for cell in cells]
    assert rates == sorted(rates, reverse=True)
    columns = {name.split("`")[1] for name in view["selectedColumns"]}
    known = {each["key"] for cell in cells for kind in ("metrics", "params", "tags") for each in cell["data"][kind]}
    assert columns <= known, "every column of the view is something that cells have"


def test_what_is_not_there_is_said_in_one_line(
    output: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, said = amb(capsys, "--output-dir", str(tmp_path / "nothing"))
    assert (code, said.count("\n")) == (3, 1)
    assert "There is no MLflow data" in said
    assert not (tmp_path / "nothing").exists(), "looking makes no database"
    code, _, said = amb(capsys, "--output-dir", str(output), "--sweep", 'dem"o')
    assert (code, said.count("\n")) == (2, 1)
    assert "Did you mean demo? There are: demo, other." in said
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        code, _, said = amb(capsys, "--output-dir", str(output), "--port", port)
    assert (code, said.count("\n")) == (2, 1)
    assert f"The port {port} on 127.0.0.1 cannot be had" in said


def test_methods_that_ten_letters_do_not_tell_apart_are_numbered() -> None:
    registry = plugins.Manager().registry
    specs = [
        "activemark",
        "activemark:steps=7",
        "advtra",
        "ipguard",
        "ipguard:start=noise",
        "ipguard:start=noise,n_points=7",
    ]
    methods = [registry.method(spec, None) for spec in specs]
    facts = [describe_method(each) for each in methods]
    named = list(labels(facts).values())
    assert named[:3] == ["1 activemark steps=400", "2 activemark steps=7", "advtra"]
    assert [name[:9] for name in named[3:]] == ["4 ipguard", "5 ipguard", "6 ipguard"]
    assert len({name[:10] for name in named}) == len(specs)
    assert labels(facts[2:4]) == {"advtra": "advtra", "ipguard": "ipguard"}, "nothing is numbered without need"


def test_the_comparison_takes_so_many_runs_and_says_how_many_there_are(
    output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pages, "MOST_COMPARED", 1)
    client, experiment = pages.connect(output)
    said: list[str] = []
    query = parse_qs(pages.links(client, experiment, "demo", said.append)["comparison"].partition("?")[2])
    (kept,) = json.loads(query["runs"][0])
    assert said == ["The comparison holds the 1 of 2 that detect most; the other pages hold all."]
    summaries = client.search_runs([experiment], 'tags.`amb.level` = "summary" and tags.`amb.sweep` = "demo"')
    best = max(summary.data.metrics["detection_rate"] for summary in summaries)
    assert client.get_run(kept).data.metrics["detection_rate"] == best
    monkeypatch.setattr(pages, "MOST_COMPARED", 2)
    pages.links(client, experiment, "demo", said.append)
    assert len(said) == 1


def tracked(number: int, suspect: str = "prune40", sweep: str = "", judged: bool = True, **params: str) -> Any:
    """A cell as MLflow gives it; of a higher number later."""
    data = SimpleNamespace(
        tags={"amb.sweep": sweep} if sweep else {},
        params={"suite": "toy", "owner": "a", "method_spec": "m", "suspect": suspect, "seed": "0", **params},
        metrics={"detection_rate": 1.0} if judged else {},
    )
    return SimpleNamespace(data=data, info=SimpleNamespace(run_id=str(number), start_time=number))


def test_the_newest_run_of_each_cell_counts_whatever_it_ran_beside() -> None:
    runs = [
        *(tracked(1), tracked(2), tracked(3, "prune20"), tracked(4, judged=False)),
        *(tracked(5, owner="b"), tracked(6, sweep="s"), tracked(7, seed="1")),
    ]
    said: dict[str, str] = {}
    client = SimpleNamespace(set_tag=lambda run, name, value: said.update({run: value}))
    pages._mark_superseded(client, runs)
    assert said == {"1": "true", "2": "false", "3": "false", "4": "true", "5": "false", "6": "false", "7": "false"}
    for run in runs:
        run.data.tags[SUPERSEDED] = said.pop(run.info.run_id)
    pages._mark_superseded(client, runs)
    assert not said, "what is said already is not said again"


def test_titles_of_axes_have_room() -> None:
    short, long = (
        [f"attack/prune{n}" for n in range(10)],
        [f"attack/prune:amount=0.{n}+finetune-cosine" for n in range(10)],
    )
    for names in (short, long):
        plots = views._split_axes(names)
        assert [name for plot in plots for name in plot] == names
        assert all(len(plot) <= 2 or sum(map(len, plot)) <= views._TITLES for plot in plots)
    assert views._split_axes([]) == []


def test_a_strangers_name_reaches_neither_filter_nor_terminal(output: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, said = amb(capsys, "--output-dir", str(output), "--sweep", '" or "1" = "1\x1b[31m')
    assert (code, said.count("\n")) == (2, 1)
    assert "\x1b" not in said


def test_a_server_elsewhere_is_pointed_at_not_started(
    ui: Ui, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", ui.address)
    code, told, _ = amb(capsys, "--sweep", "demo")
    assert code == 0
    assert told.splitlines()[0] == ui.address
    assert told.splitlines()[1].split()[1] == ui.pages["comparison"].replace(ui.quiet, ui.address)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    code, _, said = amb(capsys)
    assert (code, said.count("\n")) == (1, 1)
    assert "http://127.0.0.1:9 cannot be read" in said


def test_stopped_while_it_starts_it_leaves_no_process(output: Path) -> None:
    port = str(pick_port("127.0.0.1", None))
    command = [sys.executable, "-m", "amb", "ui", "--no-browser", "--output-dir", str(output), "--port", port]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert "is starting" in process.stderr.readline()
    assert processes(port)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=30) == 0
    assert processes(port) == []


def test_a_server_that_does_not_start_is_said_in_one_line(output: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with (
        pytest.raises(AmbError, match="MLflow's server did not start: ") as caught,
        serving(output, "127.0.0.1", 99_999, 60, lambda _: None),
    ):
        pass
    assert "\n" not in str(caught.value)


def test_ctrl_c_leaves_no_process(ui: Ui) -> None:
    """The last test of the file: it ends the server that the others have used."""
    assert len(processes(ui.port)) >= 2
    assert ui.stop(signal.SIGINT) == 0
    assert processes(ui.port) == []
    assert ui.process.stderr.read().splitlines()[-1] == "stopped."
