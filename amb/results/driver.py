"""The driver of a sweep: keeps its status file while it goes on, and does what is asked of it there."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from threading import Condition, Thread
from typing import Final, Literal

from amb.api.records import Cell, CellResult
from amb.api.run import Run
from amb.results.status import (
    BEAT_SECONDS,
    QUIET_SECONDS,
    State,
    SweepStatus,
    forget_ended,
    new_driver,
    read_request,
    write_status,
)
from amb.runtime.processes import name_this_process
from amb.runtime.stopping import ask_to_stop, forget_request, interrupt

_PACE_SECONDS: Final = 300.0
"""How far back the pace is measured."""
_POINTS: Final = 60
"""Moments that are kept for it."""


class Driver:
    """What is known of a sweep while this process drives it. A folder that cannot be written costs the status alone."""

    def __init__(self, output: Path, status: SweepStatus, say: Callable[[str], None]) -> None:
        self.output, self.status = output, status
        self._say = say
        self.show: Callable[[int], None] = lambda _: None
        """Told how many cells are done, for a bar."""
        self._changed = Condition()
        self._is_over = False
        self._asked: Literal["", "finish", "now"] = ""
        self._pace = deque([(time.monotonic(), 0)], maxlen=_POINTS)
        self._written: tuple[float, SweepStatus] | None = None
        self._beats = Thread(target=self._beat, name="amb-status", daemon=True)

    def start(self, workers: int) -> None:
        """Write for the first time, and from then on: with the first run, when all that may be refused was checked."""
        if self._written is not None:
            return
        self.status = replace(self.status, workers=workers)
        with suppress(OSError):
            forget_ended(self.output, self.status.sweep)
        self._write()
        self._beats.start()

    def note_begun(self, cell: Cell) -> None:
        """A cell that the run is at."""
        with self._changed:
            self.status = replace(self.status, at=f"{cell.method} on {cell.suspect}, seed {cell.seed}")

    def note_finished(self, result: CellResult) -> None:
        """A cell that was recorded."""
        with self._changed:
            now = self.status
            self.status = replace(
                now,
                done=now.done + 1,
                cached=now.cached + result.cached,
                skipped=now.skipped + (result.status == "skipped"),
                failed=now.failed + (result.status == "failed"),
            )
        self.show(self.status.kept + self.status.done)

    def finish(self, state: State, reason: str = "") -> None:
        """The last word, where there was a first."""
        if self._written is None:
            return
        with self._changed:
            self._is_over = True
            self.status = replace(self.status, state=state, reason=reason[:500])
            self._changed.notify_all()
        self._beats.join(2 * QUIET_SECONDS)
        self._write()

    def _beat(self) -> None:
        while not self._is_over:
            with self._changed:
                self._changed.wait(BEAT_SECONDS)
            if not self._is_over:
                self._heed_request()
                self._write_news()

    def _heed_request(self) -> None:
        """The first request finishes what is under way, a second one does not."""
        asked = read_request(self.output, self.status)
        if asked in ("", self._asked):  # "": none yet, or it cannot be read at the moment
            return
        self._asked = asked
        with self._changed:
            self.status = replace(self.status, state="stopping")
        if asked == "finish":
            self._say("asked to stop: what is being computed is finished, nothing more is begun")
            ask_to_stop()
        else:
            self._say("asked to stop now")
            interrupt()

    def _write_news(self) -> None:
        """Where there is any, or none for a while."""
        if self._written is None or self._has_news(*self._written):
            self._write()

    def _has_news(self, when: float, written: SweepStatus) -> bool:
        if time.monotonic() - when >= QUIET_SECONDS:
            return True
        return replace(self.status, beat=0, beat_at=0.0, per_minute=None) != replace(
            written, beat=0, beat_at=0.0, per_minute=None
        )

    def _write(self) -> None:
        with self._changed:
            beat = self.status.beat + 1
            self.status = replace(self.status, beat=beat, beat_at=time.time(), per_minute=self._measure_pace())
        with suppress(OSError):  # a full disk is the store's and the recorder's to say
            write_status(self.output, self.status)
        self._written = (time.monotonic(), self.status)

    def _measure_pace(self) -> float | None:
        """Cells a minute over the last few minutes; None before anything is done."""
        now = time.monotonic()
        while len(self._pace) > 1 and now - self._pace[1][0] > _PACE_SECONDS:
            self._pace.popleft()
        then, done = self._pace[0]
        if now - self._pace[-1][0] >= _PACE_SECONDS / _POINTS:
            self._pace.append((now, self.status.done))
        new = self.status.done - done
        return round(new / max(now - then, 1e-3) * 60, 3) if new else None


_drivers: dict[tuple[Path, str], Driver] = {}
"""Of the sweeps that this process drives, by output folder and name."""


@contextmanager
def driving(output: Path, status: SweepStatus, say: Callable[[str], None]) -> Iterator[Driver]:
    """Keep the status of a sweep while its cells are computed."""
    forget_request()
    driver = Driver(output, status, say)
    _drivers[output, status.sweep] = driver
    try:
        yield driver
        driver.finish("finished")
    except KeyboardInterrupt:
        driver.finish("stopped")
        raise
    except BaseException as error:
        driver.finish("failed", f"{type(error).__name__}: {error}")
        raise
    finally:
        del _drivers[output, status.sweep]
        forget_request()


def begin_status(sweep: str, cells: int, kept: int, log: str | None) -> SweepStatus:
    """The status of a sweep that this process is about to drive."""
    return SweepStatus(sweep, new_driver(), name_this_process(), time.time(), cells, kept, log=log)


def find_driver(run: Run) -> Driver | None:
    """The driver of a run; None for one of no sweep."""
    return _drivers.get((run.output, run.sweep or ""))
