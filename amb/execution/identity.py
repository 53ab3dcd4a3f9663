"""What a plan's results follow from, as one digest: a finished run of the same digest need not be gone through again."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

import amb.evaluation
from amb import __version__
from amb.api.digests import digest_of
from amb.api.plan import Plan, digest_suspects
from amb.models.references import find_digest
from amb.plugin.registry import Registry


def identify_plan(plan: Plan, registry: Registry) -> str:
    """A digest of the suite, models, components with their source, seed, thresholds, precision, and the code that judges.

    Raises where a model is missing or unknown.
    """
    return digest_of(
        {
            "amb": __version__,
            "judged by": _digest_judges(),
            "suite": plan.suite.definition(),
            "compute": plan.compute.definition(),
            "models": {ref: find_digest(ref, registry) for ref in plan.references()},
            "owner": plan.owner,
            "methods": [method.definition() for method in plan.methods],
            "suspects": digest_suspects(plan.suspects),
            "asked": [plan.seed, plan.tau, plan.alpha, plan.level],
        }
    )


@cache
def _digest_judges() -> str:
    """Of the files of `amb.evaluation`: the store does not hold verdicts, so they follow from this code too."""
    digest = hashlib.sha256()
    for file in sorted(Path(amb.evaluation.__file__).parent.glob("*.py")):
        digest.update(file.name.encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()[:32]
