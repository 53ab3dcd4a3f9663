"""The jobs that a run is made of, and what comes of each: plain values that travel between processes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from amb.api.plan import Plan
from amb.api.records import EmbeddingFacts, SuspectFacts
from amb.api.types import Status

F = TypeVar("F")


@dataclass(frozen=True)
class ProfileFacts:
    """The activation profile of the owner."""

    profile: dict[str, Any]
    figure: Path


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


def list_suspect_jobs(plan: Plan) -> Iterator[SuspectJob]:
    """The jobs behind the cells of a plan, in the order of the cells."""
    for method in range(len(plan.methods)):
        yield from (SuspectJob(method, suspect) for suspect in range(len(plan.suspects)))


def describe_job(plan: Plan, job: Job[Any]) -> str:
    """A job as messages name it."""
    if isinstance(job, SuspectJob):
        return f"{plan.methods[job.method].name} on {plan.suspects[job.suspect].name}"
    return f"embed {plan.methods[job.method].name}" if isinstance(job, EmbedJob) else "profile of the owner"
