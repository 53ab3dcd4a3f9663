"""How long `amb --help` takes beside `python -c pass`: run in turn, so that the ratio holds on a noisy machine."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

RUNS = 25


def seconds(command: list[str]) -> float:
    started = time.perf_counter()
    subprocess.run(command, capture_output=True, check=True)
    return time.perf_counter() - started


if __name__ == "__main__":
    pairs = [
        (seconds([sys.executable, "-m", "amb", "--help"]), seconds([sys.executable, "-c", "pass"])) for _ in range(RUNS)
    ]
    ratio = statistics.median(ours / bare for ours, bare in pairs)
    print(f"amb --help: {1000 * statistics.median(ours for ours, _ in pairs):.0f} ms, {ratio:.1f} x python -c pass")
