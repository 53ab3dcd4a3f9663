"""What of a plan lies in the store already: nothing is computed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from amb.api.plan import Plan
from amb.execution.jobs import SuspectJob
from amb.execution.steps import Steps
from amb.plugin.registry import Registry
from amb.runtime.progress import Silent
from amb.store.lookup import Lookup, NotStored


class StoredShare(NamedTuple):
    """How many cells a plan has, and how many of them need no computing."""

    plan: Plan
    n_cells: int
    n_stored: int


def preview_plans(
    plans: Sequence[Plan], output: Path, registry: Registry, store: str | None = None
) -> list[StoredShare]:
    """For each plan how much of it is in the store."""
    root = store or output / "store"
    is_empty = Lookup(root).is_empty()
    return [StoredShare(plan, plan.n_cells, 0 if is_empty else _count_stored(plan, root, registry)) for plan in plans]


def _count_stored(plan: Plan, root: str | Path, registry: Registry) -> int:
    steps = Steps(plan, Lookup(root), Silent(), registry)
    embedded = [index for index in range(len(plan.methods)) if _is_embedded(steps, index)]
    return sum(_is_stored(steps, SuspectJob(index, at)) for index in embedded for at in range(len(plan.suspects)))


def _is_embedded(steps: Steps, method: int) -> bool:
    """Whether a method's cells are worth a look: without its key none of them is there."""
    try:
        steps.owner.embed(steps.plan.methods[method])
    except NotStored:
        return False
    except Exception:  # noqa: BLE001 (a skip, or a plugin's fault, is each cell's own)
        return True
    return True


def _is_stored(steps: Steps, job: SuspectJob) -> bool:
    """Whether a cell's outcome is there, a skip too; a failure is computed again."""
    try:
        return steps.do(job).status != "failed"
    except NotStored:
        return False
