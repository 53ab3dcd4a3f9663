"""The command line as a shell sees it: output, exit codes, one-line errors, nothing written on bad input."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from amb.runtime.wording import count
from amb.store.places import WORK
from tests.command import heed_interrupts, run_amb
from tests.execution import toy_sweep

QUICK = ["--set", "steps=3", "--set", "n_triggers=4", "--set", "n_images=8", "--set", "n_bits=4"]


def amb(*args: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run the command line in a process of its own, without MLflow unless `env` says otherwise."""
    return run_amb(*args, env={**os.environ, "AMB_DISABLE_PLUGINS": "mlflow", "COLUMNS": "130", **(env or {})})


HEAVY = {"torch", "mlflow", "timm", "transformers", "open_clip", "scipy.stats", "pandas", "sklearn", "matplotlib"}


@pytest.mark.parametrize("args", [["--help"], ["list"], ["show", "activemark"], ["plugins"], ["run", "--help"]])
def test_light_commands_import_nothing_heavy(args: list[str]) -> None:
    code = f"import sys\nfrom amb.cli import main\ntry:\n main({args})\nexcept SystemExit: print('\\n', *sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not HEAVY & set(done.stdout.splitlines()[-1].split())


def test_help_imports_neither_pydantic_nor_pluggy() -> None:
    code = (
        "import sys\nfrom amb.cli import main\ntry:\n main(['--help'])\nexcept SystemExit: print('\\n', *sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"pydantic", "pluggy", "numpy", "rich"} & set(done.stdout.splitlines()[-1].split())


@pytest.mark.parametrize(
    "command", [[], ["run"], ["list"], ["show"], ["profile"], ["plugins"], ["track"], ["track", "sync"]]
)
def test_every_command_has_help_with_an_example(command: list[str]) -> None:
    done = amb(*command, "--help")
    assert done.returncode == 0
    assert "Example" in done.stdout
    assert "\n  amb " in done.stdout.replace("    amb", "  amb")


BAD = {
    "method": (["run", "--method", "activemrk"], 2, "Did you mean activemark"),
    "attack": (["run", "--method", "activemark", "--attack", "prun40"], 2, "Did you mean prune40"),
    "suite": (["run", "--method", "activemark", "--suite", "tyni"], 2, "Did you mean tiny"),
    "model": (["run", "--method", "activemark", "--model", "tiny/ownr"], 2, "Did you mean tiny/owner"),
    "prefix": (["run", "--method", "activemark", "--model", "tinny/owner"], 2, "Did you mean tiny/owner"),
    "timm": (["run", "--method", "activemark", "--model", "timm/vit_smal_patch16_224"], 2, "Did you mean vit_small"),
    "parameter": (["run", "--method", "activemark:stepz=3"], 2, "Did you mean steps"),
    "set": (["run", "--method", "activemark", "--set", "stepz=3"], 2, "Did you mean steps"),
    "range": (["run", "--method", "activemark", "--attack", "prune:amount=1.5"], 2, "must be less than 1 (got 1.5)"),
    "nan": (["run", "--method", "activemark", "--attack", "prune:amount=nan"], 2, "must be a finite number"),
    "needed": (["run", "--method", "activemark", "--attack", "prune"], 2, "needs amount"),
    "spec": (["run", "--method", "activemark", "--attack", "prune:amount"], 2, "is not key=value"),
    "chain": (["run", "--method", "activemark", "--attack", "prune40+"], 2, "does not start with a name"),
    "seed": (["run", "--method", "activemark", "--seed", "-1"], 2, "seed must be 0 or more"),
    "word": (["run", "--method", "activemark", "--seed", "x"], 2, "not a valid integer"),
    "alpha": (["run", "--method", "activemark", "--alpha", "1"], 2, "alpha must lie between"),
    "device": (["run", "--method", "activemark", "--device", "cuda:7"], 2, "cuda:7 was asked for"),
    "no device": (["run", "--method", "activemark", "--device", "gpu"], 2, "There is no device 'gpu'"),
    "format": (["run", "--method", "activemark", "--format", "jsn"], 2, "Did you mean json"),
    "file": (["run", "--method", "activemark", "--model", "file/nowhere"], 3, "does not exist"),
    "pickle": (["run", "--method", "activemark", "--model", "file/model.pth"], 2, "is a pickle"),
    "command": (["rnu"], 2, "Did you mean run"),
    "nothing": (["run"], 2, "Missing option '--method'"),
    "component": (["show", "prun40"], 2, "Did you mean prune40"),
    "block": (["run", "--method", "activemark:block=-1"], 2, "block"),
    "dry": (["run", "--method", "activemark", "--model", "tiny/ownr", "--dry-run"], 2, "Did you mean tiny/owner"),
    "profile": (["profile", "tiny/convnet"], 2, "no transformer blocks"),
    "figure": (["profile", "tiny/owner", "--figure", "p.xyz"], 2, "not '.xyz'"),
    "no results": (["report"], 3, "There are no results in amb-results"),
    "layout": (["report", "--layout", "paper-tabel2"], 3, "There are no results"),
    "report format": (["report", "--format", "xls"], 2, "No format is called 'xls'"),
    "sweep file": (["sweep", "nowhere.yaml"], 2, "No such file"),
    "figure place": (["profile", "tiny/owner", "--figure", "/proc/no/p.png"], 2, "is read-only"),
}


@pytest.mark.parametrize("case", list(BAD))
def test_bad_input_is_one_line_and_writes_nothing(case: str, tmp_path: Path) -> None:
    args, code, message = BAD[case]
    done = amb(*args)
    assert done.returncode == code, done.stderr
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == (2 if case == "sweep file" else 1)
    assert done.stdout == ""
    assert list(tmp_path.iterdir()) == []


def test_an_output_folder_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "results").write_text("mine")
    done = amb("run", "--method", "activemark", "--output-dir", "results")
    assert done.returncode == 2
    assert "is a file" in done.stderr
    assert (tmp_path / "results").read_text() == "mine"


def test_an_output_folder_on_a_read_only_place_is_refused() -> None:
    done = amb("run", "--method", "activemark", "--output-dir", "/proc/results")
    assert done.returncode == 2
    assert "is read-only" in done.stderr


def test_a_run_prints_one_json_document_and_the_rest_on_stderr(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    toy_sweep.install(tmp_path, monkeypatch)
    asked = ["run", "--suite", "toy", "--method", "activemark", *QUICK, "--attack", "prune40"]
    done = amb(*asked, "--format", "json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert set(document) == {"schema", "run", "cells", "tables"}
    cell = next(each for each in document["cells"] if each["suspect"] == "prune40")
    assert set(cell) >= {
        "method", "attack", "suspect", "kind", "sibling", "status", "cached", "detection_rate", "interval", "tau",
        "bit_error_rate", "p_values", "claim", "p_value", "basis", "paper_rule", "margin", "n_trials", "n_negatives", "utility", "seconds", "seed",
    }  # fmt: skip
    assert set(cell["seconds"]) == {"embed", "attack", "extract"}
    suspects = {each["suspect"]: each for each in document["cells"]}
    assert suspects["toy/other"]["status"] == "ok"
    assert suspects["unmarked owner"]["sibling"] is True
    again = amb(*asked)
    assert again.returncode == 0
    assert "cached" in again.stdout
    assert "it rests on 4 trials." in again.stdout
    assert "sources of innocent models support" in again.stdout
    assert "results: amb-results" in again.stdout
    assert "\x1b" not in again.stdout


def test_a_dry_run_computes_nothing(tmp_path: Path) -> None:
    done = amb("run", "--method", "activemark", "--attack", "prune40", "--dry-run", "--format", "json")
    assert [cell["suspect"] for cell in json.loads(done.stdout)["plan"]][-2:] == ["unattacked", "prune40"]
    assert list(tmp_path.iterdir()) == []


def test_ctrl_c_exits_130_and_says_how_to_go_on(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "amb", "run", "--method", "activemark", "--set", "steps=100000"]
    environment = {**os.environ, "AMB_DISABLE_PLUGINS": "mlflow"}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment, preexec_fn=heed_interrupts)  # noqa: PLW1509
    deadline = time.monotonic() + 120
    begun = f"amb-results/store/{WORK}/embed-*"
    while not list(tmp_path.glob(begun)):
        assert time.monotonic() < deadline, "the embedding did not begin"
        time.sleep(0.1)
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "the same command goes on from there" in err
    assert "Traceback" not in err
    assert not list(tmp_path.glob(begun))


def test_profile_prints_blocks_and_saves_the_figure(tmp_path: Path) -> None:
    done = amb("profile", "tiny/owner")
    assert done.returncode == 0, done.stderr
    assert "Expressive block:" in done.stdout
    assert (tmp_path / "profile-tiny-owner.png").exists()
    document = json.loads(amb("profile", "tiny/owner", "--format", "json").stdout)
    assert len(document["top"]) == 6


def test_list_and_show_know_presets() -> None:
    rows = json.loads(amb("list", "attacks", "--format", "json").stdout)
    assert {"prune40", "finetune-cosine", "none"} <= {row["name"] for row in rows}
    assert "prune40 sets 0.4" in amb("show", "prune40").stdout
    assert "activemark-contrastive" in amb("list", "methods").stdout


def test_every_option_has_an_environment_variable() -> None:
    done = amb("list", env={"AMB_LIST_FORMAT": "json"})
    assert json.loads(done.stdout)
    done = amb("run", "--dry-run", env={"AMB_RUN_METHOD": "activemark", "AMB_RUN_SEED": "-3"})
    assert "seed must be 0 or more (got -3)" in done.stderr


def test_a_bare_command_prints_the_whole_help() -> None:
    bare, asked = (
        subprocess.run([sys.executable, "-m", "amb", *words], capture_output=True, text=True, check=False)
        for words in ([], ["--help"])
    )
    assert (bare.returncode, bare.stderr) == (0, "")
    assert bare.stdout == asked.stdout
    assert "Examples:\n    amb run --method activemark --attack prune40" in bare.stdout


@pytest.mark.parametrize(("n", "words"), [(0, "0 cells"), (1, "1 cell"), (12_000, "12,000 cells")])
def test_numbers_of_things_are_put_in_words(n: int, words: str) -> None:
    assert count(n, "cell") == words
