"""The owner's and the judge's verbs from Python: protect, verify, judge; the command line is a thin layer over them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from amb.api.interfaces import Method, Suite
from amb.api.spec import Spec
from amb.errors import MissingError
from amb.evaluation.statistics import EXACT_LEVEL
from amb.ownership.protect import protect as protect_model
from amb.ownership.under_way import Request, Workplace
from amb.plugin.manager import manager
from amb.plugin.registry import Registry
from amb.python.notebook import pick_progress
from amb.runtime.compute import Compute, pick_compute
from amb.runtime.paths import DATA


def protect(
    model: str | Path,
    output: str | Path,
    *,
    method: str | Method = "spread-features",
    data: str | Path | None = None,
    params: Mapping[str, Any] | None = None,
    level: float = EXACT_LEVEL,
    self_test: str = "quick",
    passphrase: str | None = None,
    compute: Compute | None = None,
    quiet: bool = False,
) -> Path:
    """Write a folder with the marked model, the key, a commitment and a report: what `amb protect` does; the folder.

    `model` is a reference or a path; the marked copy is written in the form in which it came. `data` is a folder of images
    like those that the model will see; without it the embedded ones serve. The key is drawn from the operating system's
    randomness. Stopped, the same call goes on. Raises AmbError.
    """
    request, at = plan_protection(model, method, data, params, level, self_test, compute, quiet=quiet)
    return protect_model(request, Path(output), at, passphrase)


def plan_protection(
    model: str | Path,
    method: str | Method,
    data: str | Path | None,
    params: Mapping[str, Any] | None,
    level: float,
    self_test: str,
    compute: Compute | None,
    *,
    quiet: bool,
) -> tuple[Request, Workplace]:
    """What will be done, looked up and checked. Raises UsageError."""
    registry = manager().registry
    ref = resolve_model(model)
    chosen = registry.method(method, {name: str(value) for name, value in (params or {}).items()})
    request = Request(ref, chosen, find_images(ref, data, registry), level, self_test)
    return request, Workplace(registry, compute or pick_compute("auto"), pick_progress(quiet))


def resolve_model(text: str | Path) -> str:
    """A reference as it is; a path that is there as `file/<path>`."""
    return f"file/{Path(text).expanduser().resolve()}" if Path(text).expanduser().exists() else str(text)


def find_images(ref: str, data: str | Path | None, registry: Registry) -> Suite:
    """The images of a folder of one's own, shared out by role; the embedded ones without a folder."""
    if data is None:
        return registry.suite("tiny")
    folder = Path(data).expanduser().resolve()
    if not folder.is_dir():
        raise MissingError(f"The folder of images {folder} does not exist. Give a folder: --data.")
    os.environ[DATA] = str(folder.parent)  # travels as a variable, see `amb.runtime.paths`
    return registry.suites.create(Spec("folder", {"model": ref, "data": folder.name}))
