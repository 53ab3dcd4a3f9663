"""Kills the driver, a worker or a node of a sweep again and again, and says whether every result came out once and the same.

    python -m tests.execution.kills [--executor processes|ray|bucket] [--kills 50] [--seed 0]

A killed driver is started again, a killed node comes back, a killed worker is the executor's affair. With `bucket` the workers are
processes and the store lies on an S3 server. Three of four kills fall on work, the fourth anywhere from start to end. Each sweep that comes
to its end is compared with that of one process, cell by cell; no step that was in the store may have been begun again, and
every file of the store must have its digest. Then the next sweep begins, with a store of its own, until so many were killed.
Twenty minutes on two cores.
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
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from tests.execution.toy_sweep import SWEEP, WITNESS, find_repeated, write_site
from tests.store.servers import start_server
from tests.tracking.kills import read_table, say

NODE: Final = {"num_cpus": 1, "object_store_memory": 80 * 2**20}
WORK: Final = {**SWEEP, "attacks": [*SWEEP["attacks"], {"slow": {"seconds": 1.5, "draw": [1, 2, 3, 4]}}]}


def main() -> int:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--executor", choices=["processes", "ray", "bucket"], default="processes")
    asked.add_argument("--kills", type=int, default=50)
    asked.add_argument("--seed", type=int, default=0)
    options = asked.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        write_site(Path(folder), WITNESS)
        Path("s.yaml").write_text(json.dumps(WORK))
        paths = [folder, os.environ.get("PYTHONPATH", "")]
        os.environ |= {"PYTHONPATH": os.pathsep.join(paths), "AMB_DISABLE_PLUGINS": "mlflow", "OMP_NUM_THREADS": "1"}
        started = time.monotonic()
        wait_for(start_sweep("undisturbed", "serial"), "undisturbed")
        lasting = time.monotonic() - started
        table = read_table("undisturbed")
        say(f"undisturbed: {len(table)} cells")
        with opening(options.executor) as place:
            return Killer(place, table, lasting, random.Random(options.seed)).work(options.kills)


class Processes:
    """Two worker processes of this machine."""

    victims = ("driver", "worker")
    executor: tuple[str, ...] = ("processes:workers=2",)

    def store_of(self, _: str) -> tuple[str, ...]:
        """Options of the sweep that say where its store is."""
        return ()

    def find_workers(self, driver: int) -> list[int]:
        return [each for each in list_children(driver) if "spawn_main" in read_command(each)]


class Bucket(Processes):
    """The same, with the store on a server."""

    def store_of(self, output: str) -> tuple[str, ...]:
        return ("--store", f"s3://kills/{output}")


class Cluster:
    """Three Ray nodes on this machine."""

    victims = ("driver", "worker", "node")

    def __init__(self, cluster: Any) -> None:
        self._cluster = cluster
        self.executor = ("ray:memory=0", "--address", cluster.address)

    def store_of(self, _: str) -> tuple[str, ...]:
        return ()

    def find_workers(self, _: int) -> list[int]:
        """Processes that Ray has given a job; its agents, with which a node dies, have such names too."""
        numbers = [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]
        titles = {each: read_command(each) for each in numbers}
        return [each for each, title in titles.items() if title.startswith("ray::") and "toy" in title]

    def kill_node(self, drawn: random.Random) -> None:
        """One that is not the head, with all that runs on it; another takes its place."""
        nodes = [node for node in self._cluster.list_all_nodes() if node is not self._cluster.head_node]
        self._cluster.remove_node(drawn.choice(nodes), allow_graceful=False)
        self._cluster.add_node(**NODE)


@contextmanager
def opening(executor: str) -> Iterator[Processes | Cluster]:
    if executor == "processes":
        yield Processes()
        return
    if executor == "bucket":
        import fsspec

        with start_server() as server:
            os.environ |= {**server.environment, "AMB_STORE_CACHE": str(Path("cache").resolve())}
            fsspec.filesystem("s3").mkdir("kills")
            yield Bucket()
        return
    from ray.cluster_utils import Cluster as RayCluster

    import amb_ray.pool  # noqa: F401 (sets Ray's variables before Ray is imported)

    os.environ |= {"RAY_worker_niceness": "0", "RAY_raylet_start_wait_time_s": "300"}
    cluster = RayCluster(initialize_head=True, head_node_args={**NODE, "include_dashboard": False})
    try:
        cluster.add_node(**NODE)
        cluster.add_node(**NODE)
        cluster.wait_for_nodes()
        yield Cluster(cluster)
    finally:
        cluster.shutdown()


class Killer:
    """Starts, kills, and compares."""

    def __init__(
        self, place: Processes | Cluster, table: list[dict[str, Any]], lasting: float, drawn: random.Random
    ) -> None:
        self.place, self.table, self.lasting, self.drawn = place, table, lasting, drawn
        self.faults = 0
        self.killed: Counter[str] = Counter()

    def work(self, n: int) -> int:
        started, number = time.monotonic(), 0
        while self.killed.total() < n:
            self.go_through(f"round-{number}", n)
            number += 1
        took = time.monotonic() - started
        say(f"{self.killed.total()} kills {dict(self.killed)}, {number} sweeps, {self.faults} faults, {took:.0f} s")
        return 1 if self.faults else 0

    def go_through(self, output: str, n: int) -> None:
        """One sweep, to its end."""
        driver, killed, runs = self.start(output), Counter[str](), 1
        while not self.wait_for_moment(driver, output):
            victim = self.drawn.choice(self.place.victims)
            if self.killed.total() >= n or not self.kill(victim, driver):
                continue
            self.killed[victim] += 1
            killed[victim] += 1
            if victim == "driver":
                driver, runs = self.start(output), runs + 1
        if driver.returncode:
            self.fault(f"{output}: exit code {driver.returncode}: {Path(f'{output}.log').read_text()[-900:]}")
            return
        self.check(output)
        say(f"{output}: {runs} drivers, killed {dict(killed)}, {count_steps(output)}")

    def wait_for_moment(self, driver: subprocess.Popen[bytes], output: str) -> bool:
        """Until another step was begun and a while has passed, so that kills fall on work; whether the sweep has ended."""
        if self.drawn.random() < 0.25:
            return has_ended(driver, self.drawn.uniform(0, self.lasting))
        steps = Path(output, "steps.log")
        before = steps.stat().st_size if steps.exists() else 0
        while not has_ended(driver, 0.1):
            if steps.exists() and steps.stat().st_size > before:
                return has_ended(driver, self.drawn.uniform(0, 3))
        return True

    def start(self, output: str) -> subprocess.Popen[bytes]:
        os.environ["WITNESS"] = str(Path(output, "steps.log").resolve())
        Path(output).mkdir(exist_ok=True)
        return start_sweep(output, *self.place.executor, "--retries", "50", *self.place.store_of(output))

    def kill(self, victim: str, driver: subprocess.Popen[bytes]) -> bool:
        """Whether there was something to kill."""
        if victim == "driver":
            driver.kill()
            driver.wait()
        elif victim == "worker":
            workers = self.place.find_workers(driver.pid)
            if not workers:
                return False
            os.kill(self.drawn.choice(workers), signal.SIGKILL)
        else:
            assert isinstance(self.place, Cluster)
            self.place.kill_node(self.drawn)
        return True

    def check(self, output: str) -> None:
        if read_table(output) != self.table:
            self.fault(f"{output}: another table")
        for step in find_repeated(Path(output, "steps.log")):
            self.fault(f"{output}: {step} was begun again")
        command = [
            sys.executable,
            "-m",
            "amb",
            "store",
            "verify",
            *(self.place.store_of(output) or ("--output-dir", output)),
        ]
        verified = subprocess.run(command, capture_output=True, text=True, check=False)
        if verified.returncode:
            self.fault(f"{output}: {verified.stdout[-500:]} {verified.stderr[-500:]}")

    def fault(self, text: str) -> None:
        self.faults += 1
        say(f"FAULT {text}")


def start_sweep(output: str, *executor: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "amb", "sweep", "s.yaml", "--device", "cpu", "--output-dir", output]
    with Path(f"{output}.log").open("ab") as log:
        return subprocess.Popen([*command, "--executor", *executor], stdout=log, stderr=log)


def has_ended(process: subprocess.Popen[bytes], seconds: float) -> bool:
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        return False
    return True


def wait_for(process: subprocess.Popen[bytes], output: str) -> None:
    if process.wait():
        raise RuntimeError(Path(f"{output}.log").read_text()[-2000:])


def count_steps(output: str) -> str:
    """How many steps were begun, and how many came to the store."""
    did = Counter(line.partition(" ")[0] for line in Path(output, "steps.log").read_text().splitlines())
    return f"{did['began']} steps begun, {did['published']} published"


def list_children(of: int) -> list[int]:
    try:
        return [int(each) for each in Path(f"/proc/{of}/task/{of}/children").read_text().split()]
    except OSError:
        return []


def read_command(process: int) -> str:
    try:
        return Path(f"/proc/{process}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


if __name__ == "__main__":
    sys.exit(main())
