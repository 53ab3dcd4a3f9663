"""Kills a tracked sweep again and again and says whether tables and MLflow came out whole; takes half an hour.

    python -m tests.tracking.kills [--kills 50] [--early 10] [--seed 0]

The first kills fall while MLflow's database is being made, the others anywhere. A round goes on until a sweep was let
finish; then its tables are compared with those of a sweep that nobody disturbed, and MLflow with the results.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from amb.report.layouts import with_tables
from amb.report.tables import tables_of
from amb.results.collect import collect
from tests.conftest import QUICK
from tests.tracking.made_up import find_faults

PLUGIN = """
import amb
from amb.testing.toy import ToyLoader, ToySuite

@amb.hookimpl
def amb_register_suites():
    return [ToySuite]

@amb.hookimpl
def amb_register_models():
    return [ToyLoader]
"""
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
        return Killer(Path(folder), random.Random(options.seed)).work(options.early, options.kills)


class Killer:
    """Starts, kills, and compares."""

    def __init__(self, folder: Path, drawn: random.Random) -> None:
        self.drawn = drawn
        self.faults = 0
        self.kinds: Counter[str] = Counter()
        site = folder / "site"
        info = site / "toy_site-1.0.dist-info"
        info.mkdir(parents=True)
        (site / "toy_site.py").write_text(PLUGIN)
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: toy-site\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text("[amb]\ntoy-site = toy_site\n")
        path = os.pathsep.join([str(site), os.environ.get("PYTHONPATH", "")])
        self.environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
        (folder / "s.yaml").write_text(SWEEP)

    def work(self, early: int, kills: int) -> int:
        started = time.monotonic()
        self.start("undisturbed").wait()
        lasting = time.monotonic() - started
        self.table = read_table("undisturbed")
        say(f"undisturbed: {lasting:.0f} s, {len(self.table)} cells; {find_faults_in('undisturbed') or 'MLflow whole'}")
        done, number = 0, 0
        while done < kills:
            output = f"round-{number}"
            number += 1
            while done < kills:
                process = self.start(output)
                ended = self.wait_early(process, output) if done < early else self.wait_somewhere(process, lasting)
                if ended:
                    break
                done += 1
                self.kill(process)
            self.finish(output)
        say(
            f"{done} kills ({dict(self.kinds)}), {number} rounds, {self.faults} faults, {time.monotonic() - started:.0f} s"
        )
        return 1 if self.faults else 0

    def start(self, output: str) -> subprocess.Popen[bytes]:
        jobs = str(self.drawn.choice([1, 1, 1, 2]))
        command = [sys.executable, "-m", "amb", "sweep", "s.yaml", "--output-dir", output, "--jobs", jobs, "--quiet"]
        with Path(f"{output}.log").open("ab") as log:
            return subprocess.Popen(command, env=self.environment, stdout=log, stderr=log, start_new_session=True)

    def wait_early(self, process: subprocess.Popen[bytes], output: str) -> bool:
        """Until the database is being made, and some of the seconds that this takes."""
        while process.poll() is None and not list(Path(output).glob(".draft-mlflow.db")):
            time.sleep(0.01)
        self.kinds["draft" if not Path(output, "mlflow.db").exists() else "no draft"] += 1
        return self.wait(process, self.drawn.uniform(0, 4))

    def wait_somewhere(self, process: subprocess.Popen[bytes], lasting: float) -> bool:
        return self.wait(process, self.drawn.uniform(0.05, 1) * lasting)

    def wait(self, process: subprocess.Popen[bytes], seconds: float) -> bool:
        """Whether it ended by itself."""
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def kill(self, process: subprocess.Popen[bytes]) -> None:
        number, group = self.drawn.choice(SIGNALS), self.drawn.random() < 0.5
        self.kinds[f"{number.name} {'group' if group else 'driver'}"] += 1
        (os.killpg if group else os.kill)(process.pid, number)
        started = time.monotonic()
        if not self.wait(process, 90):
            self.fault(f"alive {time.monotonic() - started:.0f} s after {number.name}")
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def finish(self, output: str) -> None:
        """Let it end, and compare."""
        code = self.start(output).wait()
        if code:
            self.fault(f"{output}: exit code {code}: {Path(f'{output}.log').read_text()[-500:]}")
        if read_table(output) != self.table:
            self.fault(f"{output}: another table")
        last = sorted(path.name for path in Path(output, "runs").iterdir())[-1:]
        early = find_faults_in(output)
        of_last = [fault for fault in early if any(name in fault for name in last)]
        if of_last:
            self.fault(f"{output}: the final run is not whole in MLflow: {of_last[:3]}")
        synced = [self.sync(output) for _ in range(2)]
        left = find_faults_in(output)
        if left or synced[1]["told"] or synced[1]["closed"]:
            self.fault(f"{output}: after sync {left[:3]}; the second sync told {synced[1]['told']}")
        notices = [
            line for line in Path(f"{output}.log").read_text().splitlines() if line.startswith(("mlflow:", "warning"))
        ]
        say(
            f"{output}: {len(list(Path(output, 'runs').iterdir()))} runs; {len(early)} missing, RUNNING or twice before "
            f"sync, which told {synced[0]['told']} cells and closed {synced[0]['closed']}; {len(left)} after; said {notices[:2]}"
        )

    def sync(self, output: str) -> dict[str, Any]:
        command = [sys.executable, "-m", "amb", "track", "sync", "--output-dir", output, "--format", "json", "--quiet"]
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, check=False)
        if done.returncode:
            self.fault(f"{output}: sync: {done.stderr[-500:]}")
            return {"told": -1, "closed": -1}
        return dict(json.loads(done.stdout))

    def fault(self, text: str) -> None:
        self.faults += 1
        say(f"FAULT {text}")


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
