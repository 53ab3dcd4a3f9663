"""`amb ...` in a process of its own that has torch and timm already: it is forked from one that imported them once.

They take five seconds of a core to import, and the tests start hundreds of commands. What a command imports, how it reads its
surroundings at the start and what a kill leaves behind is tested with processes that start from nothing.
"""

from __future__ import annotations

import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

PRELOADED: Final = [
    "torch",
    "timm",
    "scipy.stats",
    "rich.console",
    "amb.cli",
    "amb.python.runs",
    "amb_models.timm_backbone",
]
"""Imported by the process that the others are forked from. Nothing that starts threads."""

_forking = multiprocessing.get_context("forkserver")
_forking.set_forkserver_preload(PRELOADED)


def heed_interrupts() -> None:
    """For `preexec_fn` of a process that is to be interrupted: those of a background job are born ignoring Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def run_amb(*args: str, env: Mapping[str, str] = os.environ, timeout: float = 300) -> subprocess.CompletedProcess[str]:
    """What `amb` with these words, this whole environment and an empty input prints and returns in the present folder."""
    with TemporaryDirectory() as folder:
        out, err = Path(folder, "out"), Path(folder, "err")
        process = _forking.Process(target=_be_amb, args=(args, dict(env), str(Path.cwd()), str(out), str(err)))
        process.start()
        process.join(timeout)
        if process.exitcode is None:
            process.kill()
            process.join()
            raise subprocess.TimeoutExpired(["amb", *args], timeout, out.read_bytes(), err.read_bytes())
        return subprocess.CompletedProcess(["amb", *args], process.exitcode, _read(out), _read(err))


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.exists() else ""


def _be_amb(args: tuple[str, ...], env: dict[str, str], folder: str, out: str, err: str) -> None:
    """Become `python -m amb`: the environment, the folder and the streams are those of the one who asks."""
    for stream, path, flags in (
        (0, os.devnull, os.O_RDONLY),
        (1, out, os.O_WRONLY | os.O_CREAT),
        (2, err, os.O_WRONLY | os.O_CREAT),
    ):
        os.dup2(os.open(path, flags, 0o600), stream)
    os.environ.clear()
    os.environ.update(env)
    os.chdir(folder)
    sys.path[:0] = filter(None, env.get("PYTHONPATH", "").split(os.pathsep))
    sys.argv = ["amb", *args]
    runpy.run_module("amb", run_name="__main__", alter_sys=True)
