"""Where and with what a run is made: its name, versions, machine, git commit."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final

from amb import __version__
from amb.api.plan import Plan
from amb.plugin.registry import Plugin

_PACKAGES: Final = ("torch", "torchvision", "timm", "numpy", "scipy", "scikit-learn", "safetensors", "mlflow-skinny")


def name_run(plan: Plan, now: datetime | None = None) -> str:
    """A name for a run that sorts by time and says what was asked."""
    now = now or datetime.now(UTC)
    asked = hashlib.sha256()
    for cell in plan.stream_cells():
        asked.update(repr(cell).encode())
    return f"{now:%Y%m%d-%H%M%S-%f}-{asked.hexdigest()[:6]}"


def find_provenance(plugins: Sequence[Plugin]) -> dict[str, Any]:
    """Where and with what a run was made: versions, machine, git commit."""
    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": find_versions(),
        "plugins": {
            plugin.name: f"{plugin.distribution} {plugin.version}" for plugin in plugins if not plugin.disabled
        },
        "machine": {"system": platform.system(), "architecture": platform.machine(), "cpus": os.cpu_count()},
        "git_commit": _find_git_commit(),
    }


def find_versions() -> dict[str, str]:
    """Versions of amb, Python and the packages on which figures rest."""
    found = {"amb": __version__, "python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _find_git_commit() -> str | None:
    """Commit of the folder one works in, so that a result says which code of one's own made it."""
    try:
        done = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
