"""What the harness itself costs, from a hundred cells to a million: planning, a cell, a resume, two workers.

The steps are those of `synthetic.py`, which cost next to nothing. Every figure is of a process of its own and is kept in
`results.json` as soon as it is there, so the command goes on where it was stopped; `--again` measures anew.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from math import log
from pathlib import Path
from typing import Final

HERE: Final = Path(__file__).parent
ROOT: Final = HERE.parents[2]
RESULTS: Final = HERE / "results.json"
PLOT: Final = HERE / "scale.svg"
START_CELLS: Final = 12
"""A run so small that it shows what starting and ending take."""
BURN_CELLS, BURN_SECONDS = 60, 1.0
PLAN: Final = """
import json, sys, time
from pathlib import Path
from amb.plugin.manager import manager
from amb.python.sweeps import plan_sweep, select_sweep
registry = manager().registry
wall, cpu = time.perf_counter(), time.process_time()
sweep = select_sweep(Path(sys.argv[1]), (), None)
cells = sum(plan.n_cells for plan in plan_sweep(sweep))
print(json.dumps({"cells": cells, "wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}))
"""


@dataclass(frozen=True)
class Figure:
    """One measurement. Seconds of CPU are those of the process and its children."""

    part: str
    cells: int
    wall: float
    cpu: float
    mib: float
    """Peak of memory of its largest process."""
    when: str
    machine: str


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("parts", nargs="*", help=f"Of: {', '.join(PARTS)}. By default all.")
    asked.add_argument("--most", type=int, default=10_000, help="Cells of the largest run (default 10,000).")
    asked.add_argument("--folder", type=Path, help="Where sweeps run and stay; by default a temporary folder.")
    asked.add_argument("--results", type=Path, default=RESULTS, help="JSON file of the figures.")
    asked.add_argument("--again", action="store_true", help="Measure anew what is there.")
    options = asked.parse_args()
    if unknown := set(options.parts) - set(PARTS):
        asked.error(f"there is no part {', '.join(sorted(unknown))}")
    folder = options.folder or Path(tempfile.mkdtemp(prefix="amb-scale-"))
    bench = Bench(folder.resolve(), options.results, options.most)
    if options.again:
        bench.forget(options.parts or list(PARTS))
    try:
        for part in options.parts or PARTS:
            PARTS[part](bench)
    finally:
        if options.folder is None:
            shutil.rmtree(folder, ignore_errors=True)
    print(make_table(bench.figures))
    draw(bench.figures, options.results.with_name(PLOT.name))


class Bench:
    """Where figures come from and go to."""

    def __init__(self, folder: Path, results: Path, most: int) -> None:
        self.folder, self.results, self.most = folder, results, most
        told = json.loads(results.read_text()) if results.exists() else []
        self.figures = [Figure(**each) for each in told]
        self.environment = self._install()

    def sizes(self, largest: int) -> list[int]:
        """Hundred, thousand, ... up to the largest."""
        return [10**power for power in range(2, 8) if 10**power <= largest]

    def has(self, part: str, cells: int) -> bool:
        return any((each.part, each.cells) == (part, cells) for each in self.figures)

    def forget(self, parts: list[str]) -> None:
        """So that they are measured anew."""
        self.figures = [
            each for each in self.figures if each.part.partition("-")[0] not in parts and each.part not in parts
        ]

    def keep(self, part: str, cells: int, wall: float, cpu: float, mib: float) -> None:
        """Note a figure."""
        when = datetime.now(UTC).isoformat(timespec="seconds")
        machine = f"{os.cpu_count()} cores, {platform.machine()}, load {os.getloadavg()[0]:.1f}"
        self.figures.append(Figure(part, cells, round(wall, 3), round(cpu, 3), round(mib), when, machine))
        self.results.write_text(json.dumps([asdict(each) for each in self.figures], indent=1) + "\n")
        print(f"{part}, {cells:,} cells: {wall:.2f} s, {cpu:.2f} s of CPU, {mib:.0f} MiB", file=sys.stderr)

    def measure(self, *command: str, tracked: bool = True) -> tuple[str, float, float, float]:
        """Standard output, seconds, seconds of CPU and MiB of a process."""
        environment = self.environment | ({} if tracked else {"AMB_DISABLE_PLUGINS": "mlflow"})
        with tempfile.TemporaryFile("w+") as out:
            started = time.perf_counter()
            process = subprocess.Popen(
                [sys.executable, *command], env=environment, stdin=subprocess.DEVNULL, stdout=out
            )
            _, code, used = os.wait4(process.pid, 0)
            wall = time.perf_counter() - started
            process.returncode = os.waitstatus_to_exitcode(code)
            if process.returncode:
                raise SystemExit(f"{' '.join(command)} ended with exit code {process.returncode}")
            out.seek(0)
            return out.read(), wall, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024

    def sweep(self, file: Path, output: Path, *more: str, tracked: bool = True) -> tuple[str, float, float, float]:
        """`amb sweep`, on the CPU."""
        command = ["-m", "amb", "sweep", str(file), "--output-dir", str(output), "--device", "cpu", "--yes", *more]
        return self.measure(*command, "--quiet", tracked=tracked)

    def write_sweep(self, cells: int, attack: str = "touch", seconds: float | None = None) -> Path:
        """The file of a sweep of about so many cells: one method, an attack with three axes."""
        sides = [min(100, max(1, cells // at)) for at in (10_000, 100, 1)]
        axes = ", ".join(f"{name}: {list(range(side))}" for name, side in zip("abc", sides, strict=True))
        burn = "" if seconds is None else f", seconds: {seconds}"
        path = self.folder / f"{attack}-{cells}.yaml"
        path.write_text(f"suites: scale\nmethods: noop\nattacks:\n- {attack}: {{{axes}{burn}}}\n")
        return path

    def _install(self) -> dict[str, str]:
        """The environment in which the plugin of the synthetic steps is installed."""
        info = self.folder / "site" / "amb_scale-0.dist-info"
        info.mkdir(parents=True, exist_ok=True)
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: amb-scale\nVersion: 0\n")
        (info / "entry_points.txt").write_text("[amb]\nscale = synthetic\n")
        given = [os.environ["PYTHONPATH"]] if "PYTHONPATH" in os.environ else []
        path = os.pathsep.join([*map(str, (info.parent, HERE, ROOT, ROOT / "plugins")), *given])
        return {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "RAY_worker_niceness": "0"}


def measure_plan(bench: Bench) -> None:
    """From the file to plans that were checked; the time is without that of starting Python."""
    for cells in bench.sizes(1_000_000):
        if not bench.has("plan", cells):
            out, _, _, mib = bench.measure("-c", PLAN, str(bench.write_sweep(cells)))
            said = json.loads(out)
            bench.keep("plan", cells, said["wall"], said["cpu"], mib)


def measure_dry_run(bench: Bench) -> None:
    """The whole command; it counts."""
    for cells in bench.sizes(1_000_000):
        if not bench.has("dry-run", cells):
            command = ("-m", "amb", "sweep", str(bench.write_sweep(cells)), "--dry-run", "--device", "cpu")
            bench.keep("dry-run", cells, *bench.measure(*command)[1:])


def measure_run(bench: Bench, part: str = "run", *, tracked: bool = True) -> None:
    """Everything that a cell takes: planned, computed, stored, judged, recorded, told to MLflow."""
    start = f"{part}-start"
    if not bench.has(start, START_CELLS):
        output = fresh(bench.folder / f"{part}-{START_CELLS}")
        bench.keep(start, START_CELLS, *bench.sweep(bench.write_sweep(START_CELLS), output, tracked=tracked)[1:])
    for cells in bench.sizes(bench.most):
        if not bench.has(part, cells):
            output = fresh(bench.folder / f"{part}-{cells}")
            bench.keep(part, cells, *bench.sweep(bench.write_sweep(cells), output, tracked=tracked)[1:])


def measure_untracked(bench: Bench) -> None:
    """As `run`, without MLflow."""
    measure_run(bench, "untracked", tracked=False)


def measure_resume(bench: Bench) -> None:
    """The same command again, once all is finished."""
    for cells in bench.sizes(bench.most):
        if not bench.has("resume", cells):
            output = finished(bench, cells)
            bench.keep("resume", cells, *bench.sweep(bench.write_sweep(cells), output)[1:])


def measure_lookup(bench: Bench) -> None:
    """Every cell looked up in the store and judged again, as of a sweep whose run was killed at its end; without MLflow."""
    for cells in bench.sizes(bench.most):
        if not bench.has("lookup", cells):
            output = finished(bench, cells)
            kept = (output / "runs").rename(bench.folder / f"runs-{cells}")
            bench.keep("lookup", cells, *bench.sweep(bench.write_sweep(cells), output, tracked=False)[1:])
            shutil.rmtree(output / "runs")
            kept.rename(output / "runs")


def measure_processes(bench: Bench) -> None:
    """Steps that keep a core busy: with one worker process, and with two."""
    measure_burning(bench, "processes-1", "--jobs", "1")
    measure_burning(bench, "processes-2", "--jobs", "2")


def measure_ray(bench: Bench) -> None:
    """The same on Ray, with as many workers as there are cores."""
    measure_burning(bench, "ray-2", "--executor", "ray")


def measure_burning(bench: Bench, part: str, *how: str) -> None:
    """A sweep of steps of a second; a run of 12 steps shows what starting takes."""
    for name, cells in ((f"{part}-start", START_CELLS), (part, BURN_CELLS)):
        if not bench.has(name, cells):
            file = bench.write_sweep(cells, "burn", BURN_SECONDS)
            bench.keep(name, cells, *bench.sweep(file, fresh(bench.folder / name), *how)[1:])


def fresh(output: Path) -> Path:
    """The folder, empty."""
    shutil.rmtree(output, ignore_errors=True)
    return output


def finished(bench: Bench, cells: int) -> Path:
    """The output of a finished sweep; run here where the part `run` has left none."""
    output = bench.folder / f"run-{cells}"
    if not list(output.glob("runs/*/run.json")):
        bench.sweep(bench.write_sweep(cells), output)
    return output


PARTS: Final[dict[str, Callable[[Bench], None]]] = {
    "plan": measure_plan,
    "dry-run": measure_dry_run,
    "run": measure_run,
    "untracked": measure_untracked,
    "resume": measure_resume,
    "lookup": measure_lookup,
    "processes": measure_processes,
    "ray": measure_ray,
}


# What the figures say


def series(figures: list[Figure], part: str) -> list[Figure]:
    """The figures of a part by size, the start of a run taken off."""
    start = next((each for each in figures if each.part == f"{part}-start"), None)
    found = sorted((each for each in figures if each.part == part), key=lambda each: each.cells)
    if start is None:
        return found
    return [
        Figure(
            part,
            each.cells - start.cells,
            each.wall - start.wall,
            each.cpu - start.cpu,
            each.mib,
            each.when,
            each.machine,
        )
        for each in found
    ]


def make_table(figures: list[Figure]) -> str:
    """Markdown: each part by size, and the power of cells with which it grows between its last two sizes."""
    rows = [
        "| part | cells | seconds | of CPU | ms of CPU a cell | MiB | grows as cells to the power |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for part in PARTS:
        before: Figure | None = None
        for each in series(figures, part):
            power = f"{log(each.cpu / before.cpu) / log(each.cells / before.cells):.2f}" if before else ""
            each_ms = f"{each.cpu / each.cells * 1e3:.3g}"
            rows.append(
                f"| {part} | {each.cells:,} | {each.wall:.2f} | {each.cpu:.2f} | {each_ms} | {each.mib:.0f} | {power} |"
            )
            before = each
    alone = series(figures, "processes-1")
    for part, name in (("processes-2", "Two worker processes"), ("ray-2", "Two Ray workers")):
        if alone and (together := series(figures, part)):
            share = alone[0].wall / together[0].wall / 2
            rows.append(
                f"\n{name} on {alone[0].cells} steps of {BURN_SECONDS:g} s, starting taken off: {share:.2f} of ideal."
            )
    return "\n".join(rows)


def draw(figures: list[Figure], path: Path) -> None:
    """Seconds of CPU by cells, both axes logarithmic; a dotted line through each part's second point is linear growth."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 5))
    for part in PARTS:
        points = series(figures, part)
        if len(points) < 2:
            continue
        x, y = [each.cells for each in points], [each.cpu for each in points]
        (line,) = axes.plot(x, y, marker="o", label=part)
        axes.plot(x, [y[1] / x[1] * cells for cells in x], linestyle=":", color=line.get_color(), alpha=0.6)
    axes.set(xscale="log", yscale="log", xlabel="cells", ylabel="seconds of CPU")
    axes.grid(visible=True, which="both", alpha=0.2)
    axes.legend(title="dotted: linear")
    figure.savefig(path, bbox_inches="tight")
    plt.close(figure)


if __name__ == "__main__":
    main()
