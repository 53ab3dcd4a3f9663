"""Who may tell MLflow a run: the process that makes it while it goes on, and afterwards one `amb track sync` at a time."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from filelock import BaseFileLock


def hold_run(folder: Path) -> BaseFileLock:
    """The lock of a run, taken; it goes with its process, however that ends. Raises filelock.Timeout where it is taken."""
    from filelock import FileLock

    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".tracking.lock", timeout=0)
    lock.acquire()
    return lock
