"""Progress of long work on standard error: a bar on a terminal, a line now and then elsewhere, nothing when quiet."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

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
        self._bars: Any = None
        """What draws, while there is anything to draw."""

    def track(self, items: Iterable[T], label: str, total: int) -> Iterator[T]:
        """Yield the items under a bar that vanishes when they are done."""
        with self.open_bar(label, total) as show:
            for done, item in enumerate(items):
                show(done)
                yield item

    @contextmanager
    def open_bar(self, label: str, total: int) -> Iterator[Callable[[int], None]]:
        """A bar below all that is said meanwhile, with the bars of shorter work under it; gives what says how much is done."""
        from rich.markup import escape

        with self._drawing() as bars:
            task = bars.add_task(escape(printable(label)), total=total)
            try:
                yield lambda done: bars.update(task, completed=done)
            finally:
                bars.remove_task(task)

    @contextmanager
    def _drawing(self) -> Iterator[Any]:
        """One drawing at a time: a bar that is opened meanwhile joins it."""
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        if self._bars is not None:
            yield self._bars
            return
        columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
        with Progress(*columns, console=self._console, transient=True) as bars:
            self._bars = bars
            try:
                yield bars
            finally:
                self._bars = None

    def say(self, text: str) -> None:
        """Show one line."""
        self._console.print(printable_lines(text), markup=False, emoji=False)


@contextmanager
def open_bar(progress: Progress, label: str, total: int) -> Iterator[Callable[[int], None]]:
    """A bar for work that says how much of it is done; where there is no terminal its lines say enough."""
    if not isinstance(progress, Bars):
        yield lambda _: None
        return
    with progress.open_bar(label, total) as show:
        yield show


def make_progress(quiet: bool) -> Progress:
    """Bars on a terminal, lines elsewhere, silence when asked for."""
    if quiet:
        return Silent()
    return Bars() if sys.stderr.isatty() else Lines()
