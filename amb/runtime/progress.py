"""Progress of long work on standard error: a bar on a terminal, a line now and then elsewhere, nothing when quiet."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from typing import Protocol, TypeVar

from amb.errors import printable, printable_lines

T = TypeVar("T")
_QUIET_UNTIL = 5.0  # seconds: shorter work says nothing where there is no terminal
_LINE_EVERY = 15.0  # seconds between lines where there is no terminal


class Progress(Protocol):
    """Says how far long work is."""

    def track(self, items: Iterable[T], label: str, total: int) -> Iterator[T]:
        """Yield `items`, showing `label`, how many of `total` are done and how long the rest will take."""
        ...

    def say(self, text: str) -> None:
        """Show one line or several, control characters escaped and passwords masked."""
        ...


class Silent:
    """Shows nothing."""

    def track(self, items: Iterable[T], label: str, total: int) -> Iterator[T]:
        """Yield the items."""
        yield from items

    def say(self, text: str) -> None:
        """Show nothing."""


class Lines:
    """Plain lines, for logs and pipes."""

    def track(self, items: Iterable[T], label: str, total: int) -> Iterator[T]:
        """Yield the items, with a line from time to time."""
        started = last = time.monotonic()
        for done, item in enumerate(items):
            now = time.monotonic()
            if done and now - started > _QUIET_UNTIL and now - last > _LINE_EVERY:
                rest = (now - started) / done * (total - done)
                self.say(f"{label}: {done} of {total}, about {rest:.0f} s left")
                last = now
            yield item

    def say(self, text: str) -> None:
        """Show one line."""
        print(printable_lines(text), file=sys.stderr, flush=True)


class Bars:
    """Bars on a terminal, drawn by rich."""

    def __init__(self) -> None:
        from rich.console import Console

        self._console = Console(stderr=True, highlight=False)

    def track(self, items: Iterable[T], label: str, total: int) -> Iterator[T]:
        """Yield the items under a bar that vanishes when they are done."""
        from rich.markup import escape
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
        with Progress(*columns, console=self._console, transient=True) as bars:
            yield from bars.track(items, total=total, description=escape(printable(label)))

    def say(self, text: str) -> None:
        """Show one line."""
        self._console.print(printable_lines(text), markup=False, emoji=False)


def make_progress(quiet: bool) -> Progress:
    """Bars on a terminal, lines elsewhere, silence when asked for."""
    if quiet:
        return Silent()
    return Bars() if sys.stderr.isatty() else Lines()
