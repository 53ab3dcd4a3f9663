"""Progress as a notebook shows it: what is said in plain lines, how far work is in one line that is written over."""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Iterable, Iterator
from importlib import import_module
from typing import Any, TypeVar

from amb.runtime.progress import Progress, make_progress

T = TypeVar("T")
_UPDATE_EVERY = 0.5  # seconds
_BAR = 24  # letters


def pick_progress(quiet: bool) -> Progress:
    """That of a notebook in a notebook, else that of a terminal or a log."""
    if quiet or not in_notebook():
        return make_progress(quiet)
    warnings.filterwarnings("ignore", message="IProgress not found")  # tqdm misses widgets that nothing here needs
    return NotebookProgress()


def in_notebook() -> bool:
    """Whether this process computes for a notebook; IPython on a terminal is a terminal."""
    ipython: Any = sys.modules.get("IPython")
    return ipython is not None and type(ipython.get_ipython()).__name__ == "ZMQInteractiveShell"


class NotebookProgress:
    """Uses standard output, since notebooks paint standard error as if it were an error."""

    def __init__(self) -> None:
        self._line: Any = None

    def track(self, items: Iterable[T], label: str, total: int) -> Iterator[T]:
        """Yield the items, with a line of how many are done that vanishes at the end."""
        started = last = time.monotonic()
        for done, item in enumerate(items):
            now = time.monotonic()
            if done and now - last > _UPDATE_EVERY:
                rest = (now - started) / done * (total - done)
                bar = "█" * (_BAR * done // total)
                self._show(f"{label} {bar:░<{_BAR}} {done} of {total}, about {rest:.0f} s left")
                last = now
            yield item
        if self._line is not None:
            self._show("")

    def say(self, text: str) -> None:
        """Show one line."""
        print(text, flush=True)  # noqa: T201 (what was asked for)

    def _show(self, text: str) -> None:
        """Write over the line, which stays where it began."""
        display: Any = import_module("IPython.display").display
        if self._line is None:
            self._line = display({"text/plain": text}, raw=True, display_id=True)
        else:
            self._line.update({"text/plain": text}, raw=True)
