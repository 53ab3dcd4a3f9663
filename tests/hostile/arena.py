"""Where hostile input is tried: a server that has imported everything forks one process for each input.

An input is a runner's name and bytes; a runner (`tests/hostile/runners.py`) is a function that does with them what a user
would. The forked process has its own group and folder, a limit on memory and one on time, and an audit hook that notes
what nobody may do: start a program, unpickle, write outside its folder.
"""

from __future__ import annotations

import base64
import gc
import json
import os
import resource
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any, Final, NamedTuple

SECONDS: Final = 10
MEMORY: Final = 2 * 2**30
"""Bytes that a process may take, whatever it is given."""
_ROOT: Final = Path(__file__).parents[2]
_STARTS: Final = frozenset(
    ["os.system", "os.exec", "os.posix_spawn", "os.spawn", "subprocess.Popen", "pickle.find_class"]
)
_CHANGES: Final = frozenset(["os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.link", "os.symlink", "os.truncate"])


class Outcome(NamedTuple):
    """What came of one input."""

    said: str
    """The expected error as a user sees it; empty where there was none."""
    fault: str
    """A traceback, or how the process ended."""
    deeds: list[str]
    """What it did that nobody may do."""
    seconds: float
    mib: float
    """Memory at its peak, of the whole process: torch and three libraries of models are half a gigabyte of it."""


class Arena:
    """A running server."""

    def __init__(self) -> None:
        self.tried: list[tuple[str, bytes, Outcome]] = []
        path = os.pathsep.join([str(_ROOT), str(_ROOT / "plugins"), os.environ.get("PYTHONPATH", "")])
        environment = os.environ | {"PYTHONPATH": path, "AMB_DISABLE_PLUGINS": "mlflow", "OMP_NUM_THREADS": "1"}
        environment |= {"PYTHONDONTWRITEBYTECODE": "1"}  # a fresh install would be compiled, which is a write outside
        command = [sys.executable, "-m", "tests.hostile.arena"]
        self._server = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, text=True, cwd=_ROOT
        )

    def attempt(self, runner: str, data: bytes) -> Outcome:
        """Try one input."""
        stdin, stdout = self._server.stdin, self._server.stdout
        assert stdin is not None
        assert stdout is not None
        stdin.write(json.dumps([runner, base64.b64encode(data).decode()]) + "\n")
        stdin.flush()
        outcome = Outcome(*json.loads(stdout.readline()))
        self.tried.append((runner, data[:40], outcome))
        return outcome

    def describe_worst(self) -> str:
        """How many inputs were tried, the slowest and the one that took most memory."""
        done = [each for each in self.tried if not each[2].fault]
        if not done:
            return "none"
        slowest = max(done, key=lambda each: each[2].seconds)
        largest = max(done, key=lambda each: each[2].mib)
        return (
            f"{len(done)} inputs; the slowest took {slowest[2].seconds:.1f} s ({slowest[0]}: {slowest[1]!r}); "
            f"the largest process {largest[2].mib:.0f} MiB ({largest[0]}: {largest[1]!r})"
        )

    def close(self) -> None:
        """Stop the server."""
        assert self._server.stdin is not None
        self._server.stdin.close()
        self._server.wait(30)


def refuse_harm(outcome: Outcome) -> None:
    """Fail the test where an input did any harm."""
    assert not outcome.fault, outcome.fault
    assert not outcome.deeds, outcome.deeds
    assert outcome.seconds < SECONDS
    assert outcome.mib < MEMORY / 2**20
    assert all(line.isprintable() for line in outcome.said.split("\n")), outcome.said
    assert len(outcome.said) < 200_000


def _serve() -> None:
    from tests.hostile import runners

    runners.warm_up()
    gc.freeze()  # so that no child copies what it only looks at
    answers = os.fdopen(os.dup(1), "w")  # what an input prints must not spoil them
    os.dup2(2, 1)
    for line in sys.stdin:
        name, data = json.loads(line)
        answers.write(json.dumps(_attempt(getattr(runners, f"run_{name}"), base64.b64decode(data))) + "\n")
        answers.flush()


def _attempt(run: Any, data: bytes) -> Outcome:
    folder = Path(tempfile.mkdtemp(prefix="hostile-"))
    reading, writing = os.pipe()
    started = time.monotonic()
    child = os.fork()
    if child == 0:
        os.close(reading)
        _run_in_child(run, data, folder, writing)
    os.close(writing)
    told, in_time = _read_until(reading, started + SECONDS)
    seconds = time.monotonic() - started
    os.killpg(child, signal.SIGKILL)
    _, status, used = os.wait4(child, 0)
    os.close(reading)
    shutil.rmtree(folder, ignore_errors=True)
    mib = used.ru_maxrss / 1024
    if not told:
        how = f"ended with status {status}" if in_time else f"still busy after {SECONDS} s"
        return Outcome("", how, [], seconds, mib)
    said, fault, deeds = json.loads(told)
    return Outcome(said, fault, deeds, seconds, mib)


def _read_until(number: int, deadline: float) -> tuple[bytes, bool]:
    """What a pipe brings up to its end, and whether the end came in time."""
    told = b""
    while (left := deadline - time.monotonic()) > 0 and select.select([number], [], [], left)[0]:
        part = os.read(number, 2**16)
        if not part:
            return told, True
        told += part
    return b"", False


def _run_in_child(run: Any, data: bytes, folder: Path, writing: int) -> None:
    from amb.errors import AmbError, printable_lines

    said, fault, deeds = "", "", list[str]()
    try:
        os.setsid()
        os.chdir(folder)
        _limit_memory()
        watching = [True]
        _watch(deeds, folder, watching)
        try:
            run(data)
        except AmbError as error:
            said = printable_lines(str(error))
        watching[0] = False
    except BaseException:  # noqa: BLE001 (SystemExit is one that is looked for)
        fault = traceback.format_exc()
    finally:
        with os.fdopen(writing, "w") as file:
            file.write(json.dumps([said, fault[-4000:], deeds]))
        os._exit(0)


def _limit_memory() -> None:
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + MEMORY, taken + MEMORY))


def _watch(deeds: list[str], folder: Path, watching: list[bool]) -> None:
    """Note from here on what nobody may do."""
    inside = (f"{folder.resolve()}/", "/dev/null")

    def hook(event: str, args: tuple[Any, ...]) -> None:
        if not watching[0]:
            return
        if event in _STARTS:
            deeds.append(f"{event} {args!r}"[:300])
        elif event in _CHANGES or (event == "open" and _writes(args)):
            path = args[event == "os.symlink"]
            if isinstance(path, str | bytes | os.PathLike):
                name = os.path.abspath(os.fsdecode(path))  # noqa: PTH100 (links are not followed)
                if not name.startswith(inside):
                    deeds.append(f"{event} {name}"[:300])

    sys.addaudithook(hook)


def _writes(args: tuple[Any, ...]) -> bool:
    """Whether a file is opened to be written."""
    _, mode, flags = args
    if isinstance(mode, str):
        return any(letter in mode for letter in "wax+")
    return isinstance(flags, int) and bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))


if __name__ == "__main__":
    _serve()
