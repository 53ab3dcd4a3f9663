"""Scratch folders: one for each step, removed when it is over; what killed processes left is cleared."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

_NAME: Final = re.compile(r"amb-(\d+)-.*")


@contextmanager
def open_scratch() -> Iterator[Path]:
    """A new folder in the temporary folder, named after this process."""
    with tempfile.TemporaryDirectory(prefix=f"amb-{os.getpid()}-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def clear_abandoned() -> None:
    """Remove the scratch folders of one's own whose process is gone: it was killed before it could."""
    for folder in Path(tempfile.gettempdir()).glob("amb-*-*"):
        found = _NAME.fullmatch(folder.name)
        if found and folder.is_dir() and not folder.is_symlink() and _is_own(folder) and not is_alive(int(found[1])):
            shutil.rmtree(folder, ignore_errors=True)


def is_alive(process: int) -> bool:
    """Whether a process of this machine runs."""
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:  # it is somebody else's
        return True
    return True


def _is_own(folder: Path) -> bool:
    try:
        return folder.stat().st_uid == os.getuid()
    except OSError:
        return False
