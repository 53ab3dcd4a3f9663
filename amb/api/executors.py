"""Executors: where the jobs of a sweep are computed. A plugin writes one to bring them to another kind of cluster.

An executor only starts, reports and kills. Which job is next, what is tried again, what took too long and what is
recorded is decided by the driver, the same for all of them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple, Self

from amb.api.component import Component
from amb.api.needs import Needs


@dataclass(frozen=True)
class Assignment:
    """A job as a pool is given it."""

    number: int
    """By which it is reported and killed; never used twice."""
    name: str
    """What it computes, for people."""
    needs: Needs
    load: Any
    """What `compute` is called with; it can be pickled, and means nothing to a pool."""


class Report(NamedTuple):
    """What a pool tells of an assignment: `begun` at most once, then `done` or `lost` once."""

    number: int
    event: Literal["begun", "done", "lost"]
    """`lost`: its worker died, or never came to be."""
    result: Any = None
    """What `compute` returned, where it is done."""
    reason: str = ""
    """What happened to the worker, where it is lost: `signal 9`, `its node died`."""


class Pool(ABC):
    """Workers, from when they are opened to when they are closed. Called by one thread."""

    @property
    @abstractmethod
    def width(self) -> int:
        """How many assignments to hand over at once: those that compute, and a few that wait so that no worker does."""

    @property
    def places(self) -> int:
        """How many compute at the same moment, as far as is known; `width` where nothing waits."""
        return self.width

    @abstractmethod
    def submit(self, assignment: Assignment) -> None:
        """Have it computed as soon as a worker and what it needs are free. Returns at once."""

    @abstractmethod
    def wait(self, seconds: float) -> Iterable[Report]:
        """What has happened; waits for it, `seconds` at most."""

    @abstractmethod
    def kill(self, number: int) -> None:
        """End an assignment and its worker at once. Nothing is reported of it any more."""

    @abstractmethod
    def close(self) -> None:
        """End everything: no process of the pool is left, whatever it was at."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Executor(Component, ABC):
    """A way to compute the jobs of a sweep: a frozen spec, whose workers are opened for one sweep and closed after it.

    The contract is `amb.testing.ExecutorContract`.
    """

    kind: ClassVar[str] = "executor"
    in_process: ClassVar[bool] = False
    """Whether jobs are computed by the process that asks: then nothing has to be importable elsewhere, or can be killed."""

    @abstractmethod
    def open(self, compute: Callable[[Any], Any], usual: Needs) -> Pool:
        """Workers that call `compute` with the load of each assignment. `usual` is what a job of the sweep needs.

        `compute` can be pickled; in another process it opens plugins and store anew and keeps them, and models, for the
        next call. It returns whatever goes wrong, so what it raises is a broken worker. Raises AmbError.
        """
