"""The jobs that a run is made of, and what comes of each: plain values that travel between processes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from amb.api.component import source_digest
from amb.api.digests import digest_of
from amb.api.interfaces import Method
from amb.api.plan import Plan, Suspect
from amb.api.records import EmbeddingFacts, StoredFile, SuspectFacts
from amb.api.types import Status

F = TypeVar("F")


@dataclass(frozen=True)
class ProfileFacts:
    """The activation profile of the owner."""

    profile: dict[str, Any]
    figure: StoredFile


@dataclass(frozen=True)
class Job(Generic[F]):
    """One thing to compute; methods and suspects by their place in the plan. F is what it finds out."""


@dataclass(frozen=True)
class ProfileJob(Job[ProfileFacts]):
    """Profile the owner's activations."""


@dataclass(frozen=True)
class EmbedJob(Job[EmbeddingFacts]):
    """Make a method's key, and its mark where it makes one."""

    method: int


@dataclass(frozen=True)
class SuspectJob(Job[SuspectFacts]):
    """Make a suspect, read the key on it, measure its utility."""

    method: int
    suspect: int


class PlannedJob(NamedTuple):
    """A job of one of several plans, by the plan's place among them."""

    plan: int
    job: Job[Any]


@dataclass(frozen=True)
class Order:
    """A job by value, as it travels to a worker: what it needs of its plan, and no more."""

    plan: Plan
    """Its frame is enough, see `frame_of`: a forged key is read on the bare suspects, nothing else looks for others."""
    method: Method | None = None
    suspect: Suspect | None = None
    code: str = ""
    """Digest of its components' code with the driver, where it travels: a machine with other code must not compute it."""

    def digest_code(self) -> str:
        """What `code` has to be."""
        attacks = self.suspect.attacks if self.suspect else ()
        components = [self.plan.suite, *filter(None, [self.method]), *attacks]
        return digest_of([source_digest(type(each)) for each in components])

    @property
    def what(self) -> str:
        """The job as messages name it."""
        if self.method is None:
            return "profile of the owner"
        return f"{self.method.name} on {self.suspect.name}" if self.suspect else f"embed {self.method.name}"


@dataclass(frozen=True)
class Outcome(Generic[F]):
    """What came of a job: its facts, or why there are none."""

    status: Status
    facts: F | None = None
    reason: str = ""
    traceback: str = ""


class JobRunner(Protocol):
    """Computes a job, or hands over what was computed ahead."""

    def __call__(self, job: Job[F]) -> Outcome[F]:
        """The outcome of the job."""
        ...


def frame_of(plan: Plan) -> Plan:
    """What all jobs of a plan have in common: the plan without methods and suspects, but for the bare ones."""
    return replace(plan, methods=(), suspects=tuple(each for each in plan.innocent if each.is_bare))


def make_order(plan: Plan, job: Job[Any], frame: Plan | None = None) -> Order:
    """A job of a plan by value; without its frame it holds the whole plan, which then should not travel."""
    method = plan.methods[job.method] if isinstance(job, EmbedJob | SuspectJob) else None
    order = Order(frame or plan, method, plan.suspects[job.suspect] if isinstance(job, SuspectJob) else None)
    return replace(order, code=order.digest_code()) if frame else order
