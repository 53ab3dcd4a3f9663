"""No surroundings end a command in a traceback: variables, folders, narrow terminals, closed streams."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import pytest

ROOT: Final = Path(__file__).parents[2]
SURROUNDINGS: Final[dict[str, dict[str, str]]] = {
    "language C": {"LANG": "C", "LC_ALL": "C", "PYTHONUTF8": "0"},
    "one column": {"COLUMNS": "1", "LINES": "1"},
    "no columns": {"COLUMNS": "0"},
    "folders that are files": dict.fromkeys(
        ["XDG_DATA_HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "HOME", "HF_HOME", "MPLCONFIGDIR"], "/etc/passwd"
    ),
    "folders that nobody may write": dict.fromkeys(
        ["XDG_DATA_HOME", "XDG_CACHE_HOME", "HOME", "MPLCONFIGDIR"], "/proc"
    ),
    "relative folders": dict.fromkeys(["XDG_DATA_HOME", "XDG_CACHE_HOME", "HOME", "AMB_DATA"], "../..//./x"),
    "empty": dict.fromkeys(["HOME", "AMB_DATA", "XDG_DATA_HOME", "TERM", "AMB_OFFLINE", "MLFLOW_TRACKING_URI"], ""),
    "warnings are errors": {"PYTHONWARNINGS": "error"},
    "options that are none": {"AMB_LIST_FORMAT": "\x1b[2J", "AMB_RUN_SEED": "x"},
    "another shell's": {"PYTHONIOENCODING": "ascii", "NO_COLOR": "1", "FORCE_COLOR": "1"},
}
CLOSED: Final = {"output": ">&-", "errors": "2>&-", "both": ">&- 2>&-", "input": "<&-"}


def run(command: list[str], **more: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'plugins'}", **more}
    limit = (2 * 2**30, 2 * 2**30)
    options: dict[str, Any] = {"env": environment, "preexec_fn": lambda: resource.setrlimit(resource.RLIMIT_AS, limit)}
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, **options)


@pytest.mark.parametrize("name", SURROUNDINGS)
def test_no_surroundings_end_a_command_in_a_traceback(name: str) -> None:
    done = run([sys.executable, "-m", "amb", "list", "suites"], **SURROUNDINGS[name])
    assert "Traceback" not in done.stderr, done.stderr
    assert "\x1b[2J" not in done.stderr
    assert done.returncode == (2 if name == "options that are none" else 0), done.stderr
    assert ("tiny" in done.stdout) == (done.returncode == 0)
    assert not list(Path.cwd().iterdir())


@pytest.mark.parametrize("what", CLOSED)
def test_closed_streams_end_no_command_in_a_traceback(what: str) -> None:
    done = run(["sh", "-c", f"{sys.executable} -m amb list suites {CLOSED[what]}"])
    assert "Traceback" not in done.stderr, done.stderr
    assert len(done.stderr.splitlines()) <= 1


def test_a_pipe_that_nobody_reads_is_no_traceback() -> None:
    done = run(["sh", "-c", f"{sys.executable} -m amb explain | true"])
    assert done.stderr == ""


def test_a_full_disk_is_one_line() -> None:
    done = run(["sh", "-c", f"{sys.executable} -m amb list suites > /dev/full"])
    assert done.returncode == 1
    assert done.stderr == "amb: The output cannot be written: No space left on device. Free space, and ask again.\n"
