"""Runs beside servers that misbehave, with the patience that users have, and `amb track sync` to a real one afterwards.

    python -m tests.tracking.outages

Says for each manner how long a run of 8 cells was held in all, its exit included, and what sync then told. Some minutes.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from amb.tracking.server import pick_port, serving
from tests.tracking.hostile_server import MANNERS, serving_badly
from tests.tracking.made_up import find_faults

MOST_SECONDS: Final = 10.0
PASSED: Final = 25
"""Requests that a server answers before it goes."""
RUN: Final = """
import json, sys
from pathlib import Path
from amb.plugin.manager import Manager
from tests.conftest import ToyPlugin
from tests.tracking.made_up import run_made_up
manager = Manager()
manager.register(ToyPlugin(), "toy")
run, said, seconds = run_made_up(manager, Path(sys.argv[1]))
print(json.dumps([seconds, said, len(run.results)]), flush=True)
"""


def main() -> int:
    faults = 0
    with tempfile.TemporaryDirectory() as folder, real_server(Path(folder) / "server") as (address, port):
        say(f"without tracking: {measure(Path(folder) / 'untracked', {'AMB_DISABLE_PLUGINS': 'mlflow'})[:2]} s")
        faults += try_run(Path(folder) / "healthy", "healthy", address, address)
        for manner in (*MANNERS, "dead"):
            with serving_badly(manner if manner in MANNERS else "503") as bad:
                uri = bad if manner in MANNERS else "http://127.0.0.1:9"
                faults += try_run(Path(folder) / manner, manner, uri, address)
        for manner in ("503", "dripping", "hanging", "resetting"):
            with serving_badly(manner, port, PASSED) as bad:
                faults += try_run(Path(folder) / f"then {manner}", f"healthy, then {manner}", bad, address)
    return 1 if faults else 0


@contextmanager
def real_server(output: Path) -> Iterator[tuple[str, int]]:
    """MLflow's own, on a database of its own."""
    output.mkdir()
    port = pick_port("127.0.0.1", None)
    with serving(output, "127.0.0.1", port, 300, lambda _: None) as server:
        yield server.address, port


def measure(output: Path, settings: Mapping[str, str]) -> tuple[float, float, list[str], int]:
    """Seconds in hooks, seconds to leave, what was said, and how many cells there are."""
    root = Path(__file__).parents[2]
    command = [sys.executable, "-c", RUN, str(output)]
    pipe = subprocess.PIPE
    process = subprocess.Popen(
        command, env={**os.environ, **settings}, cwd=root, stdout=pipe, stderr=subprocess.DEVNULL
    )
    assert process.stdout is not None
    line = process.stdout.readline()
    told = time.monotonic()
    process.wait()
    seconds, said, n_cells = json.loads(line)
    return seconds, time.monotonic() - told, said, n_cells


def try_run(output: Path, what: str, uri: str, address: str) -> bool:
    """Whether anything was wrong with a run beside a server, and with what sync made of it."""
    seconds, leaving, said, n_cells = measure(output, {"MLFLOW_TRACKING_URI": uri})
    before = find_faults(output, address)
    synced = [sync(output, address) for _ in range(2)]
    after = find_faults(output, address)
    fine = seconds < MOST_SECONDS and not after and synced[1]["told"] == 0 and synced[1]["closed"] == 0
    say(
        f"{'fine' if fine else 'FAULT'}  {what}: {n_cells} cells, held {seconds:.1f} s and {leaving:.1f} s to leave; "
        f"{len(before)} missing or RUNNING, sync told {synced[0]['told']} and closed {synced[0]['closed']}, "
        f"again {synced[1]['told']}; {len(after)} left {after[:2]}; said {said}"
    )
    return not fine


def sync(output: Path, address: str) -> dict[str, int]:
    command = [sys.executable, "-m", "amb", "track", "sync", "--output-dir", str(output), "--tracking-uri", address]
    done = subprocess.run([*command, "--format", "json"], capture_output=True, text=True, check=False)
    if done.returncode:
        say(done.stderr)
        return {"told": -1, "closed": -1}
    return dict(json.loads(done.stdout))


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
