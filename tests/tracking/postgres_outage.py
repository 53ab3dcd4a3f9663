"""Tracks a sweep of 2,000 cells in PostgreSQL while that is stopped and killed, and says whether `amb track sync` made it whole.

    python -m tests.tracking.postgres_outage [--cells 2000] [--methods 40] [--way direct|server|told|twice] [--output-dir o]

The cells are those of a real sweep of components that do next to nothing; steps that the output folder holds are not computed
again. Once by the database's own address, once through `mlflow server`: while the sweep runs, and again while `sync` tells what
it missed, PostgreSQL is stopped as a crash would and started again, and MLflow's server is killed. `told` is the second half of that alone: what
`direct` left is told to another MLflow server. `twice`: two processes
tell an empty database what `direct` left, each from a copy of the results, as two machines would. What MLflow holds is
read with SQL and compared with the files, value by value. Half an hour on two cores.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Self

from amb.tracking.server import Server, pick_port
from tests.tracking.no_op import make_sweep
from tests.tracking.postgres import PASSWORD, Postgres, serving_postgres

COMPARED: Final = ("detection_rate", "bit_error_rate", "p_value", "margin", "n_trials")
"""Figures of a cell that have the same name in MLflow."""
DOWN: Final = 4.0
"""Seconds that a server stays away."""
ROOT: Final = Path(__file__).parents[2]


def main() -> int:
    asked = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    asked.add_argument("--cells", type=int, default=2000)
    asked.add_argument("--methods", type=int, default=40)
    asked.add_argument("--way", choices=TRIES, action="append")
    asked.add_argument("--output-dir", type=Path)
    options = asked.parse_args()
    with tempfile.TemporaryDirectory() as scratch, serving_postgres() as postgres:
        output = (options.output_dir or Path(scratch)).resolve()
        faults = [
            fault
            for way in options.way or TRIES
            for fault in TRIES[way](postgres, way, output, options.cells, options.methods)
        ]
    for fault in faults:
        say(f"FAULT {fault}")
    say(f"{len(faults)} faults")
    return 1 if faults else 0


def try_way(postgres: Postgres, way: str, folder: Path, n_cells: int, n_methods: int) -> list[str]:
    """What went wrong with a sweep that is tracked in a way."""
    output = folder / way
    shutil.rmtree(output, ignore_errors=True)
    output.mkdir(parents=True)
    (folder / "store").mkdir(exist_ok=True)
    (output / "store").symlink_to(folder / "store")
    (output / "big.yaml").write_text(make_sweep(n_cells, n_methods))
    postgres.create(way)
    with Tracking(postgres, way, output) as tracking:
        faults = disturb_sweep(tracking, output, n_cells)
        faults += disturb_sync(tracking, output, n_cells)
        faults += find_faults(postgres, way, output, n_cells)
    return faults + find_passwords(postgres, way, output)


def try_told(postgres: Postgres, way: str, folder: Path, n_cells: int, _: int) -> list[str]:
    """What went wrong where results that are there were told to a server."""
    output = copy_results(folder, way)
    postgres.create(way)
    with Tracking(postgres, way, output) as tracking:
        faults = disturb_sync(tracking, output, n_cells)
        faults += find_faults(postgres, way, output, n_cells)
    return faults + find_passwords(postgres, way, output)


def copy_results(folder: Path, name: str) -> Path:
    """What the way `direct` left, in another folder, without its lock files."""
    copy = folder / name
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(folder / "direct", copy, symlinks=True, ignore=shutil.ignore_patterns(".tracking.lock"))
    return copy


class Tracking:
    """Where the runs are told: a database, or MLflow's server before it."""

    def __init__(self, postgres: Postgres, way: str, output: Path) -> None:
        self.postgres, self.way, self.output = postgres, way, output
        self.backend = postgres.uri(way)
        self.port = pick_port("127.0.0.1", None)
        self.server: Server | None = None

    def __enter__(self) -> Self:
        self.start_server()
        return self

    def __exit__(self, *_: object) -> None:
        if self.server:
            self.server.stop()

    @property
    def uri(self) -> str:
        """What users put into MLFLOW_TRACKING_URI."""
        return self.server.address if self.server else self.backend

    def start_server(self) -> None:
        if self.way != "direct":
            folder = self.output / "server"
            folder.mkdir(exist_ok=True)
            with setting("MLFLOW_TRACKING_URI", self.backend):
                self.server = Server(folder, "127.0.0.1", self.port)
            self.server.wait_until_healthy(300, lambda _: None)

    def crash(self) -> None:
        """All that is behind the address goes at once, and comes back."""
        if self.server:
            os.killpg(self.server.process.pid, signal.SIGKILL)
            self.server.process.wait()
        self.postgres.stop("immediate")
        time.sleep(DOWN)
        self.postgres.start()
        self.start_server()


def disturb_sweep(tracking: Tracking, output: Path, n_cells: int) -> list[str]:
    """Crash at a quarter of a sweep."""
    started = time.monotonic()
    with (output / "sweep.log").open("w") as log:
        command = [sys.executable, "-c", DRIVER, "sweep", "big.yaml", "--output-dir", "."]
        process = subprocess.Popen(command, cwd=output, env=settings(tracking.uri), stdout=log, stderr=log)
    while count_lines(output) < n_cells // 4 and process.poll() is None:
        time.sleep(0.1)
    known = count_cells(tracking.postgres, tracking.way)
    tracking.crash()
    code = process.wait()
    seconds = time.monotonic() - started
    told = count_cells(tracking.postgres, tracking.way)
    said = [line for line in (output / "sweep.log").read_text().splitlines() if line.startswith("warning")]
    say(
        f"{tracking.way}: {known} cells in MLflow at the crash; the sweep took {seconds:.0f} s, MLflow has {told}; said {said}"
    )
    faults = [f"{tracking.way}: the sweep ended with {code}"] if code else []
    faults += [f"{tracking.way}: {count_lines(output)} results"] if count_lines(output) != n_cells else []
    faults += [f"{tracking.way}: {said}"] if len(said) > 1 or "Traceback" in (output / "sweep.log").read_text() else []
    return faults


def disturb_sync(tracking: Tracking, output: Path, n_cells: int) -> list[str]:
    """Crash in the middle of what `sync` has to tell; ask again until it is through, and once more."""
    before = count_cells(tracking.postgres, tracking.way)
    with start_sync(output, tracking.uri) as process:
        while count_cells(tracking.postgres, tracking.way) < (before + n_cells) // 2 and process.poll() is None:
            time.sleep(0.2)
        tracking.crash()
        code, told, said = finish_sync(process)
    say(f"{tracking.way}: sync through a crash ended with {code}, told {told['told']}; said {said!r}")
    faults = [f"{tracking.way}: sync said {said!r}"] if said.count("\n") > 1 or "Traceback" in said else []
    for number in range(4):
        at, used = count_cells(tracking.postgres, tracking.way), os.times()
        started = time.monotonic()
        with start_sync(output, tracking.uri) as process:
            code, told, said = finish_sync(process)
        seconds, spent = time.monotonic() - started, os.times().children_user - used.children_user
        say(
            f"{tracking.way}: sync {number}: exit code {code}, had {at}, told {told['told']} in {seconds:.0f} s ({spent:.0f} s of CPU) {said!r}"
        )
        if not code and not told["told"]:
            return faults
    return [*faults, f"{tracking.way}: sync always finds something to tell"]


def tell_twice(postgres: Postgres, database: str, folder: Path, n_cells: int, _: int) -> list[str]:
    """Two `amb track sync` at once on an empty database, each from its own copy of the results, so that no lock file guards."""
    postgres.create(database)
    output = folder / "direct"
    copies = [copy_results(folder, f"copy-{number}") for number in (1, 2)]
    with (
        start_sync(copies[0], postgres.uri(database)) as first,
        start_sync(copies[1], postgres.uri(database)) as second,
    ):
        ended = [finish_sync(each) for each in (first, second)]
    say(f"two at once: {[(code, told['told'], said) for code, told, said in ended]}")
    made = postgres.ask(database, "SELECT lifecycle_stage, count(*) FROM runs GROUP BY 1 ORDER BY 1")
    say(f"two at once: MLflow runs {made}")
    faults = [f"two at once: {ended}"] if any(code for code, _, _ in ended) else []
    return faults + find_faults(postgres, database, output, n_cells)


# What MLflow holds, past MLflow


def find_faults(postgres: Postgres, database: str, output: Path, n_cells: int) -> list[str]:
    """What a database lacks of the results, has twice or has otherwise."""
    wanted = {name_cell(cell): cell for cell in read_cells(output)}
    tags = gather(postgres, database, "tags")
    cells = {run: tag for run, tag in tags.items() if tag.get("amb.level") == "cell"}
    params, metrics = (gather(postgres, database, table) for table in ("params", "latest_metrics"))
    names = {run: (params[run]["method_spec"], tag["kind"], tag["suspect"]) for run, tag in cells.items()}
    faults = [f"{database}: {len(cells)} child runs, not {n_cells}"] if len(cells) != n_cells else []
    faults += [f"{database}: {name} is there {n} times" for name, n in Counter(names.values()).items() if n != 1]
    faults += [f"{database}: {name} is missing" for name in wanted if name not in names.values()]
    faults += [f"{database}: {tag['amb.id']} twice" for tag in twice(tags)]
    above = {run for run, tag in tags.items() if tag.get("amb.level") == "summary"}
    faults += [
        f"{database}: {names[run]} has no parent"
        for run, tag in cells.items()
        if tag["mlflow.parentRunId"] not in above
    ]
    faults += [
        f"{database}: {name} has {figure} {metrics.get(run, {}).get(figure)}, not {wanted[name][figure]}"
        for run, name in names.items()
        for figure in COMPARED
        if name in wanted and metrics.get(run, {}).get(figure) != wanted[name][figure]
    ]
    left = postgres.ask(database, "SELECT count(*) FROM runs WHERE status = 'RUNNING' AND lifecycle_stage = 'active'")[
        0
    ][0]
    faults += [f"{database}: {left} are RUNNING"] if left else []
    say(
        f"{database}: {len(cells)} child runs, {len(tags)} MLflow runs, {sum(map(len, metrics.values()))} metrics; {len(faults)} faults"
    )
    return faults[:10]


def gather(postgres: Postgres, database: str, table: str) -> dict[str, dict[str, Any]]:
    """The rows of a table by run, of runs that are not deleted."""
    found: dict[str, dict[str, Any]] = {}
    query = f"SELECT run_uuid, key, value FROM {table} JOIN runs USING (run_uuid) WHERE lifecycle_stage = 'active'"
    for run, name, value in postgres.ask(database, query):
        found.setdefault(str(run), {})[str(name)] = value
    return found


def twice(tags: Mapping[str, Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    known = Counter(tag["amb.id"] for tag in tags.values())
    return [tag for tag in tags.values() if known[tag["amb.id"]] > 1]


def count_cells(postgres: Postgres, database: str) -> int:
    query = "SELECT count(*) FROM tags JOIN runs USING (run_uuid) WHERE key = 'amb.level' AND value = 'cell' AND status <> 'RUNNING'"
    if not postgres.ask(database, "SELECT to_regclass('latest_metrics')")[0][0]:
        return 0
    return int(str(postgres.ask(database, f"{query} AND lifecycle_stage = 'active'")[0][0]))


def find_passwords(postgres: Postgres, database: str, output: Path) -> list[str]:
    """Files of the output folder, and what MLflow was told, that hold the password."""
    texts = [path for path in output.rglob("*") if path.is_file() and not path.is_symlink()]
    found = [str(path) for path in texts if PASSWORD.encode() in path.read_bytes()]
    told = postgres.ask(database, f"SELECT key FROM tags WHERE value LIKE '%{PASSWORD}%'")
    return [f"the password is in {where}" for where in (*found, *told)]


# Results and processes

DRIVER: Final = """
import sys
from amb.cli import main
from amb.plugin.manager import manager
from tests.conftest import ToyPlugin
from tests.tracking.no_op import NoOpPlugin
manager().register(ToyPlugin(), "toy")
manager().register(NoOpPlugin(), "no-op")
main(sys.argv[1:])
"""


def read_cells(output: Path) -> list[dict[str, Any]]:
    (lines,) = output.glob("runs/*/results.jsonl")
    return [json.loads(line) for line in lines.read_text().splitlines()]


def name_cell(cell: Mapping[str, Any]) -> tuple[str, str, str]:
    return cell["method"], cell["kind"], cell["suspect"]


def count_lines(output: Path) -> int:
    return sum(path.read_bytes().count(b"\n") for path in output.glob("runs/*/results.jsonl"))


@contextmanager
def start_sync(output: Path, uri: str) -> Iterator[subprocess.Popen[str]]:
    command = [
        sys.executable,
        "-c",
        DRIVER,
        "track",
        "sync",
        "--output-dir",
        str(output),
        "--format",
        "json",
        "--quiet",
    ]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, env=settings(uri), stdout=pipe, stderr=pipe, text=True) as process:
        yield process


def finish_sync(process: subprocess.Popen[str]) -> tuple[int, dict[str, Any], str]:
    """Exit code, what it counted, and what it said."""
    told, said = process.communicate()
    return process.returncode, json.loads(told) if told else {"told": "some"}, said


def settings(uri: str) -> dict[str, str]:
    paths = [str(ROOT), str(ROOT / "plugins"), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "MLFLOW_TRACKING_URI": uri, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}


@contextmanager
def setting(name: str, value: str) -> Iterator[None]:
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        os.environ.pop(name) if before is None else os.environ.__setitem__(name, before)


def say(text: str) -> None:
    sys.stdout.write(f"{time.strftime('%H:%M:%S')} {text}\n")
    sys.stdout.flush()


TRIES: Final = {"direct": try_way, "server": try_way, "told": try_told, "twice": tell_twice}

if __name__ == "__main__":
    sys.exit(main())
