"""Fixtures shared by all tests: a clean environment, the toy components, real runs of the engine."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import amb
from amb.api.run import Run
from amb.execution.engine import Engine
from amb.execution.planning import make_plan
from amb.execution.provenance import find_provenance, name_run
from amb.execution.steps import Steps
from amb.plugin import manager as plugins
from amb.runtime.paths import DATA, DOWNLOAD, OFFLINE
from amb.runtime.progress import Silent
from amb.store.store import Store
from amb.testing.toy import ToyLoader, ToySuite

FIND_PLUGINS = plugins.find_plugins
QUICK = "activemark:n_bits=8,n_triggers=8,steps=150,batch=8,n_images=16,loss=mse,lr=0.003,coder_lr=0.01"
"""ActiveMark on the toy model, in seconds."""


@cache
def find_plugins_on(_path: tuple[str, ...]) -> list[Any]:
    """The installed plugins, looked for once for every search path: what thousands of managers are made of."""
    return FIND_PLUGINS()


@pytest.fixture(autouse=True)
def clean_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test starts in an empty folder, without the user's settings."""
    monkeypatch.setattr(plugins, "find_plugins", lambda: find_plugins_on(tuple(sys.path)))
    settings = ("MLFLOW_TRACKING_URI", "AMB_DISABLE_PLUGINS", "NO_COLOR", "FORCE_COLOR", DATA, DOWNLOAD, *OFFLINE)
    for name in settings:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


LONG = (
    "plugins/ray", "testing/test_contracts", "store/test_faults", "cli/test_sweep_command", "test_docs", "cli/test_long_sweeps",
    "execution/test_worker_deaths", "tracking/test_postgres", "test_sample_plugin", "ownership/test_tutorial", "hostile",
    "plugins/suites", "plugins/spread", "execution", "test_site", "ownership/test_libraries", "report", "tracking", "store",
)  # fmt: skip
"""Files that take a minute or more, the longest first."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what takes longest, so that no worker is left with it while the others have nothing to do."""

    def rank(item: pytest.Item) -> int:
        name = item.path.as_posix().partition("/tests/")[2]
        return next((at for at, long in enumerate(LONG) if name.startswith(long)), len(LONG))

    items.sort(key=rank)


class ToyPlugin:
    """The toy suite as a plugin."""

    @amb.hookimpl
    def amb_register_suites(self) -> list[Any]:
        return [ToySuite]

    @amb.hookimpl
    def amb_register_models(self) -> list[Any]:
        return [ToyLoader]


@pytest.fixture
def manager(monkeypatch: pytest.MonkeyPatch) -> Iterator[plugins.Manager]:
    """The installed plugins and the toy one, without MLflow; `amb.plugin.manager.manager()` returns it too."""
    monkeypatch.setenv("AMB_DISABLE_PLUGINS", "mlflow")
    plugins.manager.cache_clear()
    fresh = plugins.manager()
    fresh.register(ToyPlugin(), "toy")
    yield fresh
    plugins.manager.cache_clear()


@pytest.fixture
def tracked_manager(manager: plugins.Manager) -> plugins.Manager:
    """As `manager`, with MLflow tracking."""
    from amb.tracking import observer as tracking

    manager.register(tracking, "mlflow-again")
    return manager


def run_toy(manager: plugins.Manager, output: Path, warnings: list[str] | None = None, **asked: Any) -> Run:
    """A real run on the toy suite."""
    options = {"suite": "toy", "methods": [QUICK], "attacks": ["prune40"], **asked}
    plan = make_plan(manager.registry, **options)
    run = Run(name_run(plan), plan, output, find_provenance(manager.plugins))
    said = [] if warnings is None else warnings
    progress = SimpleNamespace(track=Silent().track, say=said.append)
    store = Store(output / "store", said.append)
    Engine(run, Steps(plan, store, progress, manager.registry).do, store, manager, progress).execute()
    return run
