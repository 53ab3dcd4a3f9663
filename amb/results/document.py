"""The document of a run, as `--format json` prints it and docs/schema.md describes it; and the facts it carries."""

from __future__ import annotations

import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from amb import __version__
from amb.api.component import digest_of, finite
from amb.plugin.manager import Plugin

if TYPE_CHECKING:
    from amb.execution.engine import Run
    from amb.execution.planning import Plan

SCHEMA = 1
_PACKAGES = ("torch", "torchvision", "timm", "numpy", "scipy", "scikit-learn", "safetensors", "mlflow-skinny")


def run_id(plan: Plan, now: datetime | None = None) -> str:
    """A name for a run that sorts by time and says what was asked."""
    now = now or datetime.now(UTC)
    asked = digest_of([cell.__dict__ for cell in plan.cells()])
    return f"{now:%Y%m%d-%H%M%S-%f}-{asked[:6]}"


def run_facts(plugins: list[Plugin]) -> dict[str, Any]:
    """Where and with what a run was made: versions, machine, git commit."""
    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {"amb": __version__, "python": platform.python_version(), **_versions()},
        "plugins": {
            plugin.name: f"{plugin.distribution} {plugin.version}" for plugin in plugins if not plugin.disabled
        },
        "machine": {"system": platform.system(), "architecture": platform.machine(), "cpus": os.cpu_count()},
        "git_commit": _git_commit(),
    }


def document(run: Run) -> dict[str, Any]:
    """`{"schema": 1, "run": {...}, "cells": [...]}`; every value is JSON, non-finite numbers are null."""
    plan = run.plan
    facts = {
        "id": run.id,
        "folder": str(run.folder),
        "sweep": run.sweep,
        "suite": plan.suite.canonical(),
        "owner": plan.owner,
        "methods": [method.canonical() for method in plan.methods],
        "seed": plan.seed,
        "alpha": plan.alpha,
        "device": plan.compute.device,
        "compute": plan.compute.facts(),
        "data": plan.suite.data_facts(),
        **run.facts,
        "profile": run.profile,
        "embeddings": run.embeddings,
        "links": run.links,
    }
    cells = [result.to_json() for result in run.results]
    document: dict[str, Any] = finite({"schema": SCHEMA, "run": facts, "cells": cells})
    return document


def _versions() -> dict[str, str]:
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _git_commit() -> str | None:
    """Commit of the folder one works in, so that a result says which code of one's own made it."""
    try:
        done = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
