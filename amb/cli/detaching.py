"""`amb sweep --detach`: the same command as a process of its own, which outlives the shell and says what it says in a log."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import click

from amb.errors import AmbError, BadParamsError, printable
from amb.python.sweeps import LOG
from amb.results.status import FOLDER, find_running
from amb.runtime.writable import check_writable

BEGIN_SECONDS: Final = 60.0
"""How long the driver may take to begin before we leave it alone."""
_SHOWN: Final = 15
"""Lines of the log that are shown where it ends at once."""


def detach(arguments: Sequence[str] | None, output: Path, sweep: str) -> int:
    """Start the driver, wait until it has begun, and say how to look at it and how to stop it.

    Raises BadParamsError where one drives this sweep already, AmbError where it ends at once with a fault.
    """
    from filelock import FileLock

    check_writable(output)
    folder = output / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / f".{sweep}.detach.lock"):
        _refuse_second(output, sweep)
        log = folder / f"{sweep}.log"
        process = _start(sys.argv[1:] if arguments is None else arguments, log)
        code = _await_begin(process, output, sweep)
    if code is not None:
        return _report_end(code, log)
    look = shlex.join(["amb", "status", "--output-dir", str(output), "--watch"])
    stop = shlex.join(["amb", "stop", "--output-dir", str(output), "--sweep", sweep])
    click.echo(printable(f"sweep {sweep} goes on as process {process.pid}; what it says is in {log}"))
    click.echo(printable(f"  look: {look}"))
    click.echo(printable(f"  stop: {stop}"))
    return 0


def _refuse_second(output: Path, sweep: str) -> None:
    for other in find_running(output, sweep):
        who = f"process {other.process.process} on {other.process.host}"
        how = shlex.join(["amb", "stop", "--output-dir", str(output), "--sweep", sweep])
        raise BadParamsError(f"The sweep {sweep} goes on in {output} already: {who}. Wait for it, or stop it: `{how}`.")


def _start(arguments: Sequence[str], log: Path) -> subprocess.Popen[bytes]:
    """The driver in a session of its own, so that neither Ctrl-C nor a terminal that goes away reaches it."""
    environment = {name: value for name, value in os.environ.items() if name != "AMB_SWEEP_DETACH"}
    with log.open("ab") as file:
        return subprocess.Popen(
            [sys.executable, "-m", "amb", *_reword(arguments)],
            env={**environment, LOG: str(log.resolve())},
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def _reword(arguments: Sequence[str]) -> list[str]:
    """The command again, not detached; whatever it asks was answered."""
    kept = [word for word in arguments if word != "--detach"]
    at = kept.index("sweep") + 1
    return [*kept[:at], "--yes", *kept[at:]]


def _await_begin(process: subprocess.Popen[bytes], output: Path, sweep: str) -> int | None:
    """Its exit code where it has ended already; None once it says that it goes on, or takes its time."""
    until = time.monotonic() + BEGIN_SECONDS
    while time.monotonic() < until:
        if any(each.process.process == process.pid for each in find_running(output, sweep)):
            return None
        if (code := process.poll()) is not None:
            return code
        time.sleep(0.1)
    return None


def _report_end(code: int, log: Path) -> int:
    """A driver that ended before it was seen: all was finished, or something is wrong."""
    said = log.read_text(encoding="utf-8", errors="replace").splitlines()[-_SHOWN:]
    if code == 0:
        click.echo(printable(f"It is finished already; what it said is in {log}"))
        return 0
    for line in said:
        click.echo(printable(line), err=True)
    raise AmbError(f"The detached sweep ended at once, with exit code {code}; what it said is in {log}.")
