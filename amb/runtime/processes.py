"""Processes by a name that no other can be taken for, and whether one of this machine still lives."""

from __future__ import annotations

import hashlib
import os
import platform
import sys
import uuid
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from amb.runtime.scratch import is_alive


@dataclass(frozen=True)
class ProcessName:
    """A process of some machine."""

    machine: str
    """This boot of this machine, and in a container this container: process ids mean the same within it."""
    process: int
    started: str
    """When it began, as the kernel counts; empty where that is not told."""
    host: str
    """The machine as people call it."""

    @property
    def is_here(self) -> bool:
        """Whether it is one of this machine."""
        return self.machine == find_machine()

    def is_dead(self) -> bool:
        """Whether it certainly lives no more. Of other machines nothing is certain."""
        return self.is_here and (not is_alive(self.process) or _find_start(self.process) not in ("", self.started))


def count_cores() -> int:
    """The cores that this process may use: all, or those that a job scheduler has left it."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def name_this_process() -> ProcessName:
    """The process that asks."""
    process = os.getpid()
    return ProcessName(find_machine(), process, _find_start(process), platform.node())


@lru_cache(maxsize=1)
def find_machine() -> str:
    """A digest of the boot of this machine and the space of its process ids."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        told = f"{boot}/{Path('/proc/self/ns/pid').readlink().name}"
    except OSError:  # not Linux
        told = f"{platform.node()}/{uuid.getnode():x}"
    return hashlib.sha256(told.encode()).hexdigest()[:32]


def _find_start(process: int) -> str:
    """When a process of this machine began; `gone` where it is a zombie, empty where nothing can be learnt."""
    if sys.platform != "linux":
        return ""
    try:
        fields = Path(f"/proc/{process}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return ""
    return "gone" if fields[0] in "ZX" else fields[19]
