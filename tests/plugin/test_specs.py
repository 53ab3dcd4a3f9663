"""Every hook is documented, and called as it is documented."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest

import amb
from amb.plugin import specs as hookspecs
from amb.plugin.manager import Manager
from tests.conftest import run_toy

HOOKS = {name: hook for name, hook in vars(hookspecs).items() if name.startswith("amb_")}


@pytest.mark.parametrize("name", HOOKS)
def test_every_hook_says_when_it_is_called_or_what_it_returns(name: str) -> None:
    text = inspect.getdoc(HOOKS[name]) or ""
    assert text.startswith(("Return", "Called"))


@pytest.mark.parametrize("name", [name for name in HOOKS if "register" in name])
def test_every_registration_hook_has_a_user(name: str, manager: Manager) -> None:
    assert getattr(manager._pm.hook, name).get_hookimpls()


class Observer:
    """Writes down every call."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    @amb.hookimpl
    def amb_run_started(self, run: Any) -> None:
        self.calls.append(f"run started, {len(run.plan.cells())} cells")

    @amb.hookimpl
    def amb_cell_started(self, cell: Any) -> None:
        self.calls.append(f"{cell.suspect} started")

    @amb.hookimpl
    def amb_cell_finished(self, cell: Any, result: Any) -> None:
        self.calls.append(f"{cell.suspect} {result.status}")

    @amb.hookimpl
    def amb_run_finished(self, run: Any) -> None:
        self.calls.append(f"run finished, {len(run.results)} results")


def test_lifecycle_hooks_are_called_in_order(manager: Manager, tmp_path: Path) -> None:
    observer = Observer()
    manager.register(observer, "observer")
    run_toy(manager, tmp_path, attacks=[])
    assert observer.calls == [
        "run started, 3 cells",
        "toy/other started",
        "unmarked owner started",
        "toy/other ok",
        "unmarked owner ok",
        "unattacked started",
        "unattacked ok",
        "run finished, 3 results",
    ]
