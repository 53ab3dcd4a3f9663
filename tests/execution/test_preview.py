"""A dry run says what is in the store, and asks no more than it has to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from amb.errors import BadParamsError
from amb.execution import preview
from amb.execution.planning import make_plan, with_seed
from amb.execution.preview import preview_plans
from amb.plugin.manager import Manager
from amb.store import lookup
from tests.conftest import QUICK, run_toy


def count_lookups(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The kinds of what is looked up from here on."""
    asked: list[str] = []
    look = lookup.Lookup.get_or_make

    def note(self: Any, kind: str, *rest: Any) -> Any:
        asked.append(kind)
        return look(self, kind, *rest)

    monkeypatch.setattr(lookup.Lookup, "get_or_make", note)
    return asked


def test_what_has_run_is_in_the_store_and_what_is_new_is_not(manager: Manager, tmp_path: Path) -> None:
    run = run_toy(manager, tmp_path)
    more = make_plan(manager.registry, suite="toy", methods=[QUICK], attacks=["prune40", "prune20", "noise"])
    shares = preview_plans([run.plan, more, with_seed(run.plan, 1)], tmp_path, manager.registry)
    n = len(run.plan.suspects)
    assert [each[1:] for each in shares] == [(n, n), (n + 2, n), (n, 0)]


def test_nothing_is_asked_of_an_empty_store(manager: Manager, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preview, "Steps", None)  # it would find the models first
    plan = make_plan(manager.registry, suite="toy", methods=[QUICK], attacks=["prune40"])
    assert preview_plans([plan], tmp_path, manager.registry)[0].n_stored == 0


def test_without_a_key_no_cell_is_looked_up(manager: Manager, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten thousand cells took 13 s to say that none of them is there."""
    (tmp_path / "store/facts/0").mkdir(parents=True)
    attacks = [f"prune:amount={n / 10_000}" for n in range(1, 9_999)]
    plan = make_plan(manager.registry, suite="toy", methods=[QUICK], attacks=attacks)
    asked = count_lookups(monkeypatch)
    share = preview_plans([plan], tmp_path, manager.registry)[0]
    assert share[1:] == (10_001, 0)
    assert len(asked) < 5


def test_a_seed_below_zero_is_refused(manager: Manager) -> None:
    plan = make_plan(manager.registry, suite="toy", methods=[QUICK], attacks=[])
    with pytest.raises(BadParamsError, match="seed must be 0 or more"):
        with_seed(plan, -1)
