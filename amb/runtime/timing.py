"""How long a piece of work takes and how much memory it needs at its peak."""

from __future__ import annotations

import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path


@dataclass
class Measurement:
    """Filled in when the measured block ends."""

    seconds: float = 0.0
    """Wall-clock time."""
    peak_memory_mib: float = 0.0
    """Peak of the GPU's memory on a GPU, else of this process's resident memory."""


@contextmanager
def measure(device: str) -> Iterator[Measurement]:
    """Measure the block; on a GPU the clock stops when the GPU has finished."""
    measurement = Measurement()
    _reset_peak(device)
    started = time.perf_counter()
    try:
        yield measurement
    finally:
        _wait_for_device(device)
        measurement.seconds = round(time.perf_counter() - started, 4)
        measurement.peak_memory_mib = round(_read_peak_mib(device), 1)


def _reset_peak(device: str) -> None:
    if device.startswith("cuda"):
        import torch

        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        return
    with suppress(OSError):  # elsewhere the peak is that of the whole process
        Path("/proc/self/clear_refs").write_text("5")  # Linux: forget the peak so far (man 5 proc)


def _wait_for_device(device: str) -> None:
    if device.startswith("cuda"):
        import torch

        torch.cuda.synchronize(device)


def _read_peak_mib(device: str) -> float:
    if device.startswith("cuda"):
        import torch

        return torch.cuda.max_memory_allocated(device) / 2**20
    try:
        status = Path("/proc/self/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) / 1024
    except (OSError, IndexError, ValueError):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
