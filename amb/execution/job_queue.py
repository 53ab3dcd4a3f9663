"""Which job of a sweep is handed out next: a stream in the order of the engines, embeddings a little ahead of it."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Final, cast

from amb.api.plan import Plan
from amb.execution.jobs import EmbedJob, PlannedJob, ProfileJob, SuspectJob

_LOOKED_AT: Final = 16
"""Suspects of a method that are looked at for one that nobody is making."""


@dataclass
class _Embedded:
    """A method whose suspects can be read, and those of them that are not handed out yet."""

    plan: int
    method: int
    _next: list[int]
    """Suspects that are looked at, in their order."""
    _rest: Iterator[int]

    @classmethod
    def of(cls, plan: int, method: int, n_suspects: int) -> _Embedded:
        """With all its suspects."""
        rest = iter(range(n_suspects))
        return cls(plan, method, list(islice(rest, _LOOKED_AT)), rest)

    def jobs(self) -> Iterator[PlannedJob]:
        """The next few."""
        return (PlannedJob(self.plan, SuspectJob(self.method, at)) for at in self._next)

    def remove(self, suspect: int) -> bool:
        """Take one of them; whether any is left."""
        self._next.remove(suspect)
        self._next.extend(islice(self._rest, 1))
        return bool(self._next)


@dataclass
class JobQueue:
    """Hands out every job of every plan once. It holds a few suspects of a few methods, however many there are."""

    plans: Sequence[Plan]
    ahead: int
    """Methods to have embedded or under way, so that no worker waits for an embedding; 1 keeps the engines' order."""
    _owner_jobs: Iterator[PlannedJob] = field(init=False)
    _embedding: int = 0
    _embedded: list[_Embedded] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._owner_jobs = self._list_owner_jobs()

    def take(self, busy: Collection[PlannedJob] = ()) -> PlannedJob | None:
        """The next job, rather one that shares nothing with those that are being computed; None where none can begin yet."""
        if self._embedding + len(self._embedded) < self.ahead and (job := next(self._owner_jobs, None)):
            self._embedding += isinstance(job.job, EmbedJob)
            return job
        return self._take_suspect(busy)

    def finish(self, done: PlannedJob, ok: bool) -> None:
        """To be told of each outcome: an embedding opens its suspects."""
        if not isinstance(done.job, EmbedJob):
            return
        self._embedding -= 1
        n_suspects = len(self.plans[done.plan].suspects)
        if ok and n_suspects:
            self._embedded.append(_Embedded.of(done.plan, done.job.method, n_suspects))
            self._embedded.sort(key=lambda each: (each.plan, each.method))  # the engines' order

    def _list_owner_jobs(self) -> Iterator[PlannedJob]:
        for index, plan in enumerate(self.plans):
            yield PlannedJob(index, ProfileJob())
            yield from (PlannedJob(index, EmbedJob(method)) for method in range(len(plan.methods)))

    def _take_suspect(self, busy: Collection[PlannedJob]) -> PlannedJob | None:
        made = {each for job in busy for each in self._list_shared(job)}
        waiting = (job for embedded in self._embedded for job in embedded.jobs())
        first = next(waiting, None)
        if first is None:
            return None
        chosen = first
        if made and not made.isdisjoint(self._list_shared(first)):
            chosen = next((job for job in waiting if made.isdisjoint(self._list_shared(job))), first)
        self._remove(chosen)
        return chosen

    def _remove(self, taken: PlannedJob) -> None:
        job = cast(SuspectJob, taken.job)
        embedded = next(each for each in self._embedded if (each.plan, each.method) == (taken.plan, job.method))
        if not embedded.remove(job.suspect):
            self._embedded.remove(embedded)

    def _list_shared(self, planned: PlannedJob) -> list[tuple[Any, ...]]:
        """What two jobs may both have to make first: a suspect, which methods that leave the owner as it is share, and the
        first link of a chain.
        """
        if not isinstance(planned.job, SuspectJob):
            return []
        suspect = self.plans[planned.plan].suspects[planned.job.suspect]
        shared: list[tuple[Any, ...]] = [(planned.plan, planned.job.suspect)]
        if suspect.attacks:
            shared.append((planned.plan, planned.job.method, suspect.source, suspect.attacks[0].canonical()))
        return shared
