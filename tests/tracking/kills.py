"""Kills a tracked sweep again and again and says whether tables and MLflow came out whole; takes half an hour.

    python -m tests.tracking.kills [--kills 50] [--early 10] [--seed 0]

Processes are forked from one that has imported everything, so that kills fall on work and not on imports. The first fall while MLflow's database is being made, the others anywhere. A round goes on until a sweep was let
finish; then its tables are compared with those of a sweep that nobody disturbed, and MLflow with the results.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

from amb.report.layouts import with_tables
from amb.report.tables import tables_of
from amb.results.collect import collect
from tests.conftest import QUICK, ToyPlugin
from tests.tracking.made_up import find_faults

METHOD = QUICK.replace("steps=150", "steps=5")
SWEEP = f"""
suites: toy
methods: ['{METHOD}', '{METHOD.replace("n_triggers=8", "n_triggers=9")}']
attacks: [prune20, prune40]
"""
TIMES = {"seconds_embed", "seconds_attack", "seconds_extract", "peak_memory_mib", "cached", "run", "sweep"}
SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT)


def main() -> int:
    asked = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    asked.add_argument("--kills", type=int, default=50)
    asked.add_argument("--early", type=int, default=10)
    asked.add_argument("--seed", type=int, default=0)
    options = asked.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        Path("s.yaml").write_text(SWEEP)
        return Killer(random.Random(options.seed)).work(options.early, options.kills)


class Killer:
    """Starts, kills, and compares."""

    def __init__(self, drawn: random.Random) -> None:
        self.drawn = drawn
        self.faults = 0
        self.kinds: Counter[str] = Counter()

    def work(self, early: int, kills: int) -> int:
        wait_for(start(run_sweep, "undisturbed"))
        import_all(json.loads(Path("undisturbed.modules").read_text()))
        started = time.monotonic()
        wait_for(start(run_sweep, "measured"))
        lasting = time.monotonic() - started
        self.table = ask(read_table, "undisturbed")
        say(f"undisturbed: {lasting:.1f} s, {len(self.table)} cells; faults {ask(find_faults_in, 'undisturbed')}")
        done, number = 0, 0
        while done < kills:
            output = f"round-{number}"
            number += 1
            while done < kills:
                process = start(run_sweep, output)
                if not self.wait_for_moment(process, output, lasting, is_early=done < early):
                    break
                self.kill(process)
                done += 1
            self.finish(output)
        say(
            f"{done} kills {dict(self.kinds)}, {number} rounds, {self.faults} faults, {time.monotonic() - started:.0f} s"
        )
        return 1 if self.faults else 0

    def wait_for_moment(self, process: int, output: str, lasting: float, *, is_early: bool) -> bool:
        """Until it is to be killed; False where it has ended by itself. Early is while the database is being made."""
        if not is_early:
            return not has_ended(process, self.drawn.uniform(0.02, 1) * lasting)
        draft = Path(output, ".draft-mlflow.db")
        while not draft.exists():
            if has_ended(process, 0.005):
                return False
        ended = has_ended(process, self.drawn.uniform(0, 0.4) * lasting)
        self.kinds["while the database was made" if draft.exists() else "just after"] += not ended
        return not ended

    def kill(self, process: int) -> None:
        number, group = self.drawn.choice(SIGNALS), self.drawn.random() < 0.5
        self.kinds[f"{number.name} {'group' if group else 'driver'}"] += 1
        (os.killpg if group else os.kill)(process, number)
        if not has_ended(process, 90):
            self.fault(f"alive 90 s after {number.name}")
            os.killpg(process, signal.SIGKILL)
            wait_for(process)

    def finish(self, output: str) -> None:
        """Let it end, and compare."""
        code, log = wait_for(start(run_sweep, output)), Path(f"{output}.log")
        if code:
            self.fault(f"{output}: exit code {code}: {log.read_text()[-500:]}")
        if ask(read_table, output) != self.table:
            self.fault(f"{output}: another table")
        runs = sorted(path.name for path in Path(output, "runs").iterdir())
        before = ask(find_faults_in, output)
        if any(runs[-1] in fault for fault in before):
            self.fault(f"{output}: the final run is not whole in MLflow: {before[-3:]}")
        first, second = self.sync(output), self.sync(output)
        left = ask(find_faults_in, output)
        if left or second["told"] or second["closed"]:
            self.fault(
                f"{output}: after sync {left[:3]}; the second sync told {second['told']}, closed {second['closed']}"
            )
        said = [line for line in log.read_text().splitlines() if line.startswith(("mlflow:", "warning", "Traceback"))]
        say(
            f"{output}: {len(runs)} runs; {len(before)} missing, RUNNING or twice before sync, which told {first['told']} "
            f"cells and closed {first['closed']}; {len(left)} after; said {said[:3]}"
        )

    def sync(self, output: str) -> dict[str, Any]:
        code = wait_for(start(run_sync, output))
        if code:
            self.fault(f"{output}: sync ended with {code}: {Path(f'{output}.log').read_text()[-500:]}")
        return dict(json.loads(Path(f"{output}.synced").read_text()))

    def fault(self, text: str) -> None:
        self.faults += 1
        say(f"FAULT {text}")


def start(work: Callable[[str], int], output: str) -> int:
    """A process of its own group; its number."""
    process = os.fork()
    if process:
        return process
    code = 1
    try:
        os.setsid()
        log = os.open(f"{output}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        for number in (1, 2):
            os.dup2(log, number)
        code = work(output)
    except SystemExit as ended:
        code = int(ended.code or 0)
    except BaseException:  # noqa: BLE001 (a child must not go on as its parent)
        sys.stderr.write(traceback.format_exc())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def has_ended(process: int, seconds: float) -> bool:
    """Whether it is over in so many seconds."""
    until = time.monotonic() + seconds
    while True:
        if os.waitpid(process, os.WNOHANG)[0]:
            return True
        if time.monotonic() > until:
            return False
        time.sleep(0.005)


def wait_for(process: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def ask(question: Callable[[str], Any], output: str) -> Any:
    """An answer that another process finds: this one must hold no database open when it forks."""

    def answer(output: str) -> int:
        Path(f"{output}.answer").write_text(json.dumps(question(output)))
        return 0

    if wait_for(start(answer, output)):
        raise RuntimeError(Path(f"{output}.log").read_text()[-2000:])
    return json.loads(Path(f"{output}.answer").read_text())


def run_sweep(output: str) -> int:
    from amb.cli import main as run_amb
    from amb.plugin.manager import manager

    manager().register(ToyPlugin(), "toy")
    try:
        run_amb(["sweep", "s.yaml", "--output-dir", output, "--quiet"])
    finally:
        Path(f"{output}.modules").write_text(json.dumps(list(sys.modules)))
    return 0


def run_sync(output: str) -> int:
    from amb.cli import main as run_amb
    from amb.plugin.manager import manager

    manager().register(ToyPlugin(), "toy")
    with Path(f"{output}.synced").open("w") as file:
        os.dup2(file.fileno(), 1)
        run_amb(["track", "sync", "--output-dir", output, "--format", "json", "--quiet"])
    return 0


def import_all(names: Sequence[str]) -> None:
    for name in names:
        if name.partition(".")[0] not in ("__main__", "tests"):
            with suppress(Exception):
                import_module(name)


def find_faults_in(output: str) -> list[str]:
    return find_faults(Path(output), f"sqlite:///{Path(output).resolve() / 'mlflow.db'}")


def read_table(output: str) -> list[dict[str, Any]]:
    """Every cell, without what depends on the machine's mood."""
    (table,) = tables_of(with_tables(collect(Path(output)), "cells"))
    rows = [dict(zip(table.headers(), row, strict=True)) for row in table.rows]
    return sorted(({k: v for k, v in row.items() if k not in TIMES} for row in rows), key=str)


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
