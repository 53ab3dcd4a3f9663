"""A driver for tests with real processes: `python -m tests.store.driver LOCATION LOG [--steps N] [--seconds S] [--lease S]`."""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
import time
from functools import partial
from pathlib import Path

from amb.errors import AmbError
from amb.store.store import Store

KIND = "thing"
FILES = 3


def content_of(step: int, file: int, size: int = 20_000) -> bytes:
    """What stands in a file of a step: the same whoever computes it."""
    return (hashlib.sha256(f"{step}/{file}".encode()).digest() * (size // 32 + 1))[:size]


def make_step(step: int, log: Path, seconds: float, size: int, folder: Path) -> dict[str, int | str]:
    """Compute a step, saying so in the log first."""
    note(log, f"{step} {os.getpid()}")
    for file in range(FILES):
        time.sleep(seconds / FILES)
        (folder / f"{file}.bin").write_bytes(content_of(step, file, size))
    return {"step": step, "by": os.getpid()}


def note(log: Path, line: str) -> None:
    """Append a line, whole."""
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(file, f"{line}\n".encode())
    os.close(file)


def main() -> int:
    """Compute every step, in an order of one's own."""
    parser = argparse.ArgumentParser()
    parser.add_argument("location")
    parser.add_argument("log", type=Path)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=0.0)
    parser.add_argument("--size", type=int, default=20_000)
    parser.add_argument("--lease", type=float, default=60.0)
    asked = parser.parse_args()
    store = Store(asked.location, lambda line: print(line, flush=True), lease_seconds=asked.lease)
    try:
        for step in range(asked.steps):
            make = partial(make_step, step, asked.log, asked.seconds, asked.size)
            entry = store.get_or_make(KIND, {"step": step}, make)
            print(f"step {step} by {entry.facts['by']}", flush=True)
    except AmbError as error:
        print(f"amb: {error}", flush=True)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
