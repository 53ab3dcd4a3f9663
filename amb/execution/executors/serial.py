"""The executor `serial`: one job after the other, in the process that asks."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

from amb.api.executors import Assignment, Executor, Pool, Report
from amb.api.needs import Needs


class Serial(Executor):
    """One job after the other, in the process that asks for it. What takes too long cannot be stopped there."""

    name: ClassVar[str] = "serial"
    in_process: ClassVar[bool] = True

    def open(self, compute: Callable[[Any], Any], usual: Needs) -> Pool:
        """Nothing but a queue."""
        return _ThisProcess(compute)


class _ThisProcess(Pool):
    width = 1

    def __init__(self, compute: Callable[[Any], Any]) -> None:
        self._compute = compute
        self._waiting: deque[Assignment] = deque()

    def submit(self, assignment: Assignment) -> None:
        """Keep it until somebody waits for it."""
        self._waiting.append(assignment)

    def wait(self, seconds: float) -> Iterator[Report]:
        """Compute one of them."""
        if self._waiting:
            next_one = self._waiting.popleft()
            yield Report(next_one.number, "begun")
            yield Report(next_one.number, "done", self._compute(next_one.load))

    def kill(self, number: int) -> None:
        """Only what has not begun can be taken back."""
        self._waiting = deque(each for each in self._waiting if each.number != number)

    def close(self) -> None:
        """Forget what is waiting."""
        self._waiting.clear()
