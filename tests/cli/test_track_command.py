"""`amb track sync` as users run it: what it prints, its exit codes, and how it is counted by programs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from amb.cli import main
from amb.plugin.manager import Manager
from amb.tracking import database as databases
from amb.tracking.connection import tracking_uri
from tests.tracking.made_up import find_faults, go_through, start_run


def sync(capsys: pytest.CaptureFixture[str], *args: str) -> tuple[int, str, str]:
    """In this process: exit code, standard output, standard error."""
    with pytest.raises(SystemExit) as ended:
        main(["track", "sync", "--quiet", *args])
    return int(ended.value.code or 0), *capsys.readouterr()


def test_what_ran_without_mlflow_is_told_once(
    manager: Manager, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The fixture's manager tracks nothing, so MLflow has neither runs nor a database."""
    output = tmp_path / "amb-results"
    whole, killed = start_run(manager, output), start_run(manager, output)
    go_through(manager, whole)
    go_through(manager, killed, 3, finish=False)
    code, told, said = sync(capsys, "--format", "json")
    assert (code, said) == (0, "")
    counted = json.loads(told)
    assert (counted["cells"], counted["told"], counted["closed"]) == (11, 11, 0)
    assert [(run["run"], run["cells"], run["state"]) for run in counted["runs"]] == [
        (whole.id, 8, "whole"),
        (killed.id, 3, "whole"),
    ]
    assert find_faults(output, tracking_uri(output)) == []
    code, told, said = sync(capsys)
    assert code == 0
    assert told.splitlines()[0] == f"{whole.id}  whole  8 cells, 0 told now"
    assert said == "2 runs, 11 cells: 0 told now, 0 left RUNNING and closed.\n"


def test_what_cannot_be_told_is_one_line(
    manager: Manager, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(databases, "_make_database", lambda *_: pytest.fail("nothing is there to tell"))
    code, told, said = sync(capsys, "--output-dir", "nothing")
    assert (code, told, said.count("\n")) == (3, "", 1)
    output = tmp_path / "amb-results"
    go_through(manager, start_run(manager, output))
    code, _, said = sync(capsys, "--sweep", "tabel2")
    assert (code, said.count("\n")) == (2, 1)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "taken back by the fixture")
    for uri in ("http://user:secret@127.0.0.1:9/\x1b[2J", "nonsense://x"):
        code, told, said = sync(capsys, "--tracking-uri", uri)
        assert (code, told, said.count("\n")) == (1, "", 1)
        assert "secret" not in said
        assert said.rstrip("\n").isprintable()
