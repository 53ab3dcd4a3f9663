"""A real sweep in one process, then on three Ray nodes of which one dies half-way; also with the store on an S3 server.

    python -m tests.plugins.ray.three_nodes benchmarks/paper/table2.yaml --only seed=0 --folder ~/three-nodes

Says whether every digest, verdict and utility is the same. As long as the sweep takes, three times; what is finished in the
folder is not made again.
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
    return run_on_nodes("ray", options, None)


def try_s3(options: argparse.Namespace) -> list[Any]:
    """The store in a bucket that all nodes reach; the server keeps it in memory, so this starts anew each time."""
    import fsspec

    with start_server() as server:
        os.environ |= server.environment
        fsspec.filesystem("s3").mkdir("amb")
        return run_on_nodes(f"ray-s3-{int(time.time())}", options, "s3://amb/store")


def run_on_nodes(name: str, options: argparse.Namespace, store: str | None) -> list[Any]:
    """The sweep on three nodes; once half of its cells are there, one node is ended with all that runs on it."""
    with three_nodes() as cluster:
        n_cells = sum(plan.n_cells for plan in plan_sweep(select_sweep(options.file, options.only, None)))
        threading.Thread(target=kill_half_way, args=(cluster, options.folder / name, n_cells // 2), daemon=True).start()
        found = run(
            name, options.file, options.only, options.folder, RayExecutor(address=cluster.address, memory=0), store
        )
        print(f"{name}: {len(cluster.list_all_nodes())} nodes are left", flush=True)
        return found


@contextmanager
def three_nodes() -> Iterator[Any]:
    """A cluster of three nodes of one CPU each."""
    from ray.cluster_utils import Cluster

    import amb_ray.pool  # noqa: F401 (sets Ray's variables before Ray is imported)

    cluster = Cluster(initialize_head=True, head_node_args={**NODE, "include_dashboard": False})
    try:
        cluster.add_node(**NODE)
        cluster.add_node(**NODE)
        cluster.wait_for_nodes()
        yield cluster
    finally:
        cluster.shutdown()


def kill_half_way(cluster: Any, output: Path, n: int) -> None:
    """End the last node at once when so many cells are there."""
    while count_cells(output) < n:
        time.sleep(0.2)
    cluster.remove_node(cluster.list_all_nodes()[-1], allow_graceful=False)
    print(f"a node was ended after {count_cells(output)} cells", flush=True)


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
