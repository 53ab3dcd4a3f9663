"""A real sweep in one process, then on three Ray nodes of which one dies half-way; also with the store on an S3 server.

    python -m tests.plugins.ray.three_nodes benchmarks/paper/table2.yaml --only seed=0 --folder ~/three-nodes

Says whether every digest, verdict and utility is the same. As long as the sweep takes, three times. What one process has finished in
the folder is not made again; the nodes begin anew each time.
"""

from __future__ import annotations

import argparse
import os
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import torch

import amb
from amb.python.sweeps import plan_sweep, select_sweep
from amb_ray import RayExecutor
from tests.execution.toy_sweep import summarise
from tests.store.servers import start_server

NODE: Final = {"num_cpus": 1, "object_store_memory": 80 * 2**20}


def main() -> int:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("file", type=Path, help="The sweep.")
    asked.add_argument("--only", action="append", default=[], help="As of `amb sweep`. Repeatable.")
    asked.add_argument("--folder", type=Path, required=True, help="Where the sweeps run and stay.")
    asked.add_argument("--ways", nargs="*", default=["folder", "s3"], choices=["folder", "s3"], help="Stores to try.")
    options = asked.parse_args()
    os.environ |= {"AMB_DISABLE_PLUGINS": "mlflow", "OMP_NUM_THREADS": "1", "RAY_worker_niceness": "0"}
    torch.set_num_threads(1)  # as Ray's workers of one CPU have it: the last bits of sums depend on it
    serial = run("serial", options.file, options.only, options.folder)
    faults = 0
    for way in options.ways:
        found = try_folder(options) if way == "folder" else try_s3(options)
        same = sum(mine == theirs for mine, theirs in zip(found, serial, strict=False))
        print(f"{way}: {same} of {len(serial)} cells are the same to the last digest", flush=True)
        faults += found != serial
    return 1 if faults else 0


def try_folder(options: argparse.Namespace) -> list[Any]:
    """The store in a folder that all nodes share."""
    return run_on_nodes(f"ray-{int(time.time())}", options, None)


def try_s3(options: argparse.Namespace) -> list[Any]:
    """The store in a bucket that all nodes reach, each with a cache of its own."""
    import fsspec

    with start_server() as server:
        os.environ |= server.environment
        fsspec.filesystem("s3").mkdir("amb")
        return run_on_nodes(f"ray-s3-{int(time.time())}", options, "s3://amb/store")


def run_on_nodes(name: str, options: argparse.Namespace, store: str | None) -> list[Any]:
    """The sweep on three nodes; once half of its cells are there, one node is ended with all that runs on it."""
    output = options.folder / name
    n_cells = sum(plan.n_cells for plan in plan_sweep(select_sweep(options.file, options.only, None)))
    with three_nodes(output) as cluster:
        killed = list[int]()
        threading.Thread(target=kill_half_way, args=(cluster, output, n_cells // 2, killed), daemon=True).start()
        found = run(
            name, options.file, options.only, options.folder, RayExecutor(address=cluster.address, memory=0), store
        )
        n_left = len(cluster.list_all_nodes())
    print(f"{name}: a node was ended after {killed} of {n_cells} cells; {n_left} are left", flush=True)
    if n_left != 2 or not killed or not 0 < killed[0] < n_cells:
        raise RuntimeError("no node was ended half-way")
    return found


@contextmanager
def three_nodes(output: Path) -> Iterator[Any]:
    """A cluster of three nodes of one CPU each."""
    from ray.cluster_utils import Cluster

    import amb_ray.pool  # noqa: F401 (sets Ray's variables before Ray is imported)

    nodes = [
        {**NODE, "env_vars": {"AMB_STORE_CACHE": str(output.absolute() / f"cache-{number}")}} for number in range(3)
    ]
    cluster = Cluster(initialize_head=True, head_node_args={**nodes[0], "include_dashboard": False})
    try:
        for node in nodes[1:]:
            cluster.add_node(**node)
        cluster.wait_for_nodes()
        yield cluster
    finally:
        cluster.shutdown()


def kill_half_way(cluster: Any, output: Path, n: int, killed: list[int]) -> None:
    """End the last node at once when so many cells are there."""
    while count_cells(output) < n:
        time.sleep(0.2)
    cluster.remove_node(cluster.list_all_nodes()[-1], allow_graceful=False)
    killed.append(count_cells(output))


def count_cells(output: Path) -> int:
    """Results that the driver has recorded."""
    return sum(len(file.read_bytes().splitlines()) - 1 for file in output.glob("runs/*/results.jsonl"))


def run(
    name: str, file: Path, only: Sequence[str], folder: Path, executor: Any = None, store: str | None = None
) -> list[Any]:
    """All that is no time of a sweep, cell by cell."""
    started = time.monotonic()
    found = amb.sweep(
        file, only=only, executor=executor, output_dir=folder / name, store=store, device="cpu", quiet=True
    )
    print(f"{name}: {len(found.document['cells'])} cells, {time.monotonic() - started:.0f} s", flush=True)
    return summarise(found.document)


if __name__ == "__main__":
    raise SystemExit(main())
