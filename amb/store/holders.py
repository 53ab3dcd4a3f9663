"""Who holds a lease: a process of some machine, and whether one of this machine still lives."""

from __future__ import annotations

import os
import platform
import secrets
import sys
import uuid
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from amb.api.digests import digest_of
from amb.runtime.scratch import is_alive


@dataclass(frozen=True)
class Holder:
    """A process, named so that no other can be taken for it."""

    machine: str
    """This boot of this machine, and in a container this container: process ids mean the same within it."""
    process: int
    started: str
    """When the process began, as the kernel counts; empty where that is not told."""
    name: str
    """The machine as people call it."""

    def is_dead(self) -> bool:
        """Whether it certainly lives no more. Of other machines nothing is certain."""
        if self.machine != find_machine():
            return False
        return not is_alive(self.process) or _find_start(self.process) not in ("", self.started)


def this_process() -> Holder:
    """The process that asks."""
    return _describe(os.getpid())


def new_tag() -> str:
    """A name for a draft that nobody else will give, and that says which process of which machine wrote it."""
    return f"{this_process().process}-{find_machine()[:8]}-{secrets.token_hex(8)}"


def is_abandoned(tag: str) -> bool:
    """Whether the process that gave a draft this name was of this machine and lives no more."""
    process, _, rest = tag.partition("-")
    return rest.startswith(f"{find_machine()[:8]}-") and process.isdecimal() and not is_alive(int(process))


@lru_cache(maxsize=1)
def find_machine() -> str:
    """A digest of the boot of this machine and the space of its process ids."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        told = f"{boot}/{Path('/proc/self/ns/pid').readlink().name}"
    except OSError:  # not Linux
        told = f"{platform.node()}/{uuid.getnode():x}"
    return digest_of(told)


@lru_cache(maxsize=1)
def _describe(process: int) -> Holder:
    return Holder(find_machine(), process, _find_start(process), platform.node())


def _find_start(process: int) -> str:
    """When a process of this machine began; `gone` where it is a zombie, empty where nothing can be learnt."""
    if sys.platform != "linux":
        return ""
    try:
        fields = Path(f"/proc/{process}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return ""
    return "gone" if fields[0] in "ZX" else fields[19]
