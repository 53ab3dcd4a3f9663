"""The shipped contracts, on every registered name and preset: a new plugin is tested on arrival."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from amb import build_model
from amb.api.interfaces import Attack, Method, ModelLoader, Reporter, Suite
from amb.api.vision import VisionModel
from amb.models.heads import HEADS
from amb.plugin.manager import Manager
from amb.testing import AttackContract, MethodContract, ModelLoaderContract, ReporterContract, SuiteContract, toy_model
from amb_suites.photos import stem_of

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
    "spread-features": {"n_bits": 16, "n_messages": 1, "steps": 300, "batch": 32, "n_images": 256, "n_triggers": 128},
    "spread-weights": {"n_bits": 16, "n_messages": 8},
    "uchida": {"n_bits": 12, "lam": 1.0, "lr": 5e-3, "steps": 80, "batch": 8},
    "neuralmark": {"n_bits": 32, "n_parts": 64, "rounds": 3, "steps": 120, "batch": 4, "lr": 0.05},
    "advtra": {"n_trajectories": 16, "n_classes": 3},
    "akh": {"n_queries": 24},
    "deepsigns": {
        "n_classes": 3,
        "steps": 150,
        "batch": 32,
        "lr": 5e-3,
        "gamma1": 0.1,
        "gamma2": 0.3,
        "centre_lr": 0.1,
    },
    "mea-defender": {"n_queries": 96, "steps": 120, "secure_steps": 20, "batch": 32, "lr": 5e-3},
    "ipguard": {"n_points": 16, "k": 0.1},
    "randmark": {
        "n_bits": 8,
        "n_triggers": 16,
        "n_images": 64,
        "steps": 150,
        "batch": 8,
        "lam": 10,
        "lr": 2e-3,
        "coder_lr": 1e-2,
    },
    "sslguard": {"n_triggers": 32, "n_images": 64, "epochs": 24, "batch": 16},
    "distill": {"epochs": 1, "n_images": 16, "batch": 8},
    "finetune": {"epochs": 1, "n_images": 16, "batch": 8},
    "lora": {"epochs": 1, "n_images": 16, "batch": 8},
    "adversarial": {"epochs": 1, "n_images": 16, "batch": 8, "steps": 2},
    "merge": {"epochs": 1, "n_images": 16},
    "soup": {"n": 2, "epochs": 1, "n_images": 16, "batch": 8},
    "cut-rear": {"epochs": 1, "n_images": 16, "batch": 8},
    "adaptive-regress": {"steps": 3, "batch": 8, "n_images": 64, "n_functions": 16},
    "adaptive-unlearn": {"steps": 3, "batch": 8, "n_images": 16},
}
"""Parameters that make a component quick on the toy model; the preset's own stay as they are."""
WHOLE: dict[str, dict[str, Any]] = {
    "activemark-code": {"index": 4, "lr": 3e-3, "n_bits": 4},
    "deepsigns-wrt": {"n_bits": 16},
    "sslguard-paper": {"lr": 0.02, "shadow_lr": 0.1, "decoder_lr": 0.1, "trigger_lr": 10.0},
}
"""What has to change in a preset besides: the toy has fewer tokens, its owner was never trained, and its steps are few."""

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

    @pytest.fixture
    def independent(self, method: Method) -> VisionModel:
        """For keys of natural images one that answers otherwise: untrained models give nearly all images one class."""
        return toy_model(seed=3 if method.name in {"akh", "mea-defender"} else 2, n_classes=self.n_classes)


def needs_nothing(name: str) -> bool:
    """Whether a component can be made without parameters; `prune` wants an amount, its presets have one."""
    cls, preset = REGISTRY.attacks.find(name)
    return all(key in preset for key, field in cls.model_fields.items() if field.is_required())


def brings_its_data(name: str) -> bool:
    """Whether a suite can be tried as it is; test_paper_suites writes data for the others."""
    cls, preset = REGISTRY.suites.find(name)
    needed = {key for key, field in cls.model_fields.items() if field.is_required()}
    return needed <= set(preset) and not cls.create(preset).fetches()


ATTACKS = [name for name in REGISTRY.attacks.names() if needs_nothing(name)]
TRANSFORMER = {"img_size": 16, "patch_size": 4, "embed_dim": 32, "depth": 4, "num_heads": 4, "reg_tokens": 2}
CONVNET = {"channels": [8, 8, 16, 16], "output_stride": 8}


@pytest.mark.usefixtures("manager")
class TestAttacks(AttackContract):
    """On a small timm transformer with registers, with a head for the toy's three classes."""

    @pytest.fixture(params=ATTACKS)
    def attack(self, request: pytest.FixtureRequest) -> Attack:
        attack: Attack = quick(REGISTRY.attacks, request.param)
        return attack

    @pytest.fixture
    def model(self, manager: Manager) -> VisionModel:
        return small({"loader": "timm", "name": "vit_tiny_patch16_224", "options": TRANSFORMER})


class TestAttacksOnConvNets(TestAttacks):
    """On a small ResNet: what does not apply says so."""

    @pytest.fixture
    def model(self, manager: Manager) -> VisionModel:
        return small({"loader": "timm", "name": "resnet10t", "options": CONVNET, "image_size": 16})


def small(architecture: dict[str, Any]) -> VisionModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = build_model(architecture)
        model.heads = torch.nn.ModuleDict({"classification": HEADS["classification"](model.backbone.dim, 3)})
    model.ref = "small"
    return model.eval()


@pytest.mark.usefixtures("manager")
class TestSuites(SuiteContract):
    @pytest.fixture(params=[*filter(brings_its_data, REGISTRY.suites.names()), "toy"])
    def suite(self, request: pytest.FixtureRequest, manager: Manager) -> Suite:
        return manager.registry.suite(request.param)


@pytest.mark.usefixtures("manager")
class TestLoaders(ModelLoaderContract):
    @pytest.fixture(params=[*REGISTRY.loaders.names(), "toy"])
    def loader(self, request: pytest.FixtureRequest, manager: Manager) -> ModelLoader:
        if request.param == "photos" and not stem_of("owner").with_suffix(".json").exists():
            pytest.skip("the models of photos are made by its recipe, and are not here")
        return manager.registry.loaders.classes[request.param]()


class TestReporters(ReporterContract):
    @pytest.fixture(params=sorted(REGISTRY.reporters))
    def reporter(self, request: pytest.FixtureRequest) -> Reporter:
        return REGISTRY.reporters[request.param]()
