"""What of a plan lies in the store already: nothing is computed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from amb.api.plan import Plan
from amb.execution.jobs import list_suspect_jobs
from amb.execution.steps import Steps
from amb.execution.store import Lookup
from amb.plugin.registry import Registry
from amb.runtime.progress import Silent


class StoredShare(NamedTuple):
    """How many cells a plan has, and how many of them need no computing."""

    plan: Plan
    n_cells: int
    n_stored: int


def preview_plans(plans: Sequence[Plan], output: Path, registry: Registry) -> list[StoredShare]:
    """For each plan how much of it is in the store."""
    return [_preview_plan(plan, output, registry) for plan in plans]


def _preview_plan(plan: Plan, output: Path, registry: Registry) -> StoredShare:
    steps = Steps(plan, Lookup(output / "store"), Silent(), registry)
    jobs = list(list_suspect_jobs(plan))
    return StoredShare(plan, len(jobs), sum(steps.do(job).status != "failed" for job in jobs))
