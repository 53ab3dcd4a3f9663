"""The shipped contracts, on every registered name and preset: a new plugin is tested on arrival."""

from __future__ import annotations

from typing import Any

import pytest

from amb.plugins import Manager
from amb.protocols import Attack, Method, ModelLoader, Reporter, Suite
from amb.testing import AttackContract, MethodContract, ModelLoaderContract, ReporterContract, SuiteContract

QUICK: dict[str, dict[str, Any]] = {
    "activemark": {
        "n_bits": 8,
        "n_triggers": 8,
        "steps": 150,
        "batch": 8,
        "n_images": 16,
        "lr": 3e-3,
        "coder_lr": 1e-2,
    },
    "advtra": {"n_trajectories": 16, "n_classes": 3},
    "ipguard": {"n_points": 16, "k": 0.1},
    "distill": {"epochs": 1, "n_images": 16, "batch": 8},
    "finetune": {"epochs": 1, "n_images": 16, "batch": 8},
}
"""Parameters that make a component quick on the toy model; the preset's own stay as they are."""
WHOLE = {"activemark-code": {"index": 4, "lr": 3e-3, "n_bits": 4}}
"""What has to change in a preset besides: the toy has fewer tokens, and its owner was never trained."""

REGISTRY = Manager().registry


def quick(kind: Any, name: str) -> Any:
    cls, preset = kind.find(name)
    return cls.create({**preset, **QUICK.get(cls.name, {}), **WHOLE.get(name, {})})


@pytest.mark.usefixtures("manager")
class TestMethods(MethodContract):
    @pytest.fixture(params=REGISTRY.methods.names())
    def method(self, request: pytest.FixtureRequest) -> Method:
        method: Method = quick(REGISTRY.methods, request.param)
        return method


@pytest.mark.usefixtures("manager")
class TestAttacks(AttackContract):
    @pytest.fixture(params=[name for name in REGISTRY.attacks.names() if name != "prune"])  # it needs an amount
    def attack(self, request: pytest.FixtureRequest) -> Attack:
        attack: Attack = quick(REGISTRY.attacks, request.param)
        return attack


@pytest.mark.usefixtures("manager")
class TestSuites(SuiteContract):
    @pytest.fixture(params=[*REGISTRY.suites.names(), "toy"])
    def suite(self, request: pytest.FixtureRequest, manager: Manager) -> Suite:
        return manager.registry.suite(request.param)


@pytest.mark.usefixtures("manager")
class TestLoaders(ModelLoaderContract):
    @pytest.fixture(params=[*REGISTRY.loaders.names(), "toy"])
    def loader(self, request: pytest.FixtureRequest, manager: Manager) -> ModelLoader:
        return manager.registry.loaders.classes[request.param]()


class TestReporters(ReporterContract):
    @pytest.fixture(params=sorted(REGISTRY.reporters))
    def reporter(self, request: pytest.FixtureRequest) -> Reporter:
        return REGISTRY.reporters[request.param]()
