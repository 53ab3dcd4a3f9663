"""A thread that does jobs in order beside the run; one that fails is tried again, and nobody waits longer than they say."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from threading import Condition, Thread
from typing import Final

_PAUSES: Final = (0.5, 1.0, 2.0, 5.0, 15.0)
"""Seconds between the attempts at a job; the last of them from then on."""
_LAST_PAUSE: Final = 0.5
_LAST_ATTEMPTS: Final = 3
"""Failures after which a wait for the end is given up."""


class Background:
    """Jobs are idempotent: one that failed half-way is done again. The thread is a daemon, so it holds no process up."""

    def __init__(self) -> None:
        self._jobs: deque[Callable[[], None]] = deque()
        self._changed = Condition()
        self._failures = 0
        """Of the job at hand, in a row."""
        self._is_last = False
        self._is_stopped = False
        self.n_done = 0
        self.error: Exception | None = None
        """Why the job at hand has failed, if it has."""
        Thread(target=self._work, name="amb-tracking", daemon=True).start()

    def add(self, job: Callable[[], None]) -> None:
        """Do this when what came before is done."""
        with self._changed:
            self._jobs.append(job)
            self._changed.notify_all()

    def wait(self, seconds: float, attempts: int = 1) -> bool:
        """Whether all is done; waits so long at most, and not on where the job at hand has failed so often in a row."""
        until = time.monotonic() + seconds
        with self._changed:
            while self._jobs and self._failures < attempts and self._wait_until(until):
                pass
            return not self._jobs

    def finish(self, seconds: float) -> bool:
        """Whether all is done in the end; waits so long at most, and the thread stops: a job that hangs is left alone."""
        with self._changed:
            self._is_last, self._failures = True, 0
            self._changed.notify_all()
        done = self.wait(seconds, _LAST_ATTEMPTS)
        with self._changed:
            self._is_stopped = True
            self._changed.notify_all()
        return done

    def _wait_until(self, until: float) -> bool:
        """Whether something has changed in time."""
        left = until - time.monotonic()
        return left > 0 and self._changed.wait(left)

    def _work(self) -> None:
        while job := self._take_job():
            try:
                job()
            except Exception as error:  # noqa: BLE001 (whatever a server makes MLflow raise)
                self._note_failure(error)
            else:
                self._note_success()

    def _take_job(self) -> Callable[[], None] | None:
        """The job at hand; None where there will be no more."""
        with self._changed:
            while not self._jobs and not self._is_stopped:
                self._changed.wait()
            return None if self._is_stopped else self._jobs[0]

    def _note_success(self) -> None:
        with self._changed:
            self._jobs.popleft()
            self._failures, self.error = 0, None
            self.n_done += 1
            self._changed.notify_all()

    def _note_failure(self, error: Exception) -> None:
        """Wait a while; the end of the run, or another job, cuts that short."""
        with self._changed:
            self._failures, self.error = self._failures + 1, error
            self._changed.notify_all()
            pause = _LAST_PAUSE if self._is_last else _PAUSES[min(self._failures, len(_PAUSES)) - 1]
            if not self._is_stopped:
                self._changed.wait(pause)
