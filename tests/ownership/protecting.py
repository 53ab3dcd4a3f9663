"""A protected toy model, as an owner has it, and what strangers make of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

import amb
from amb.ownership.protect import protect
from amb.ownership.under_way import Request, Workplace
from amb.plugin.manager import Manager
from amb.runtime.compute import Compute
from amb.runtime.progress import Silent

METHOD = "spread-weights:n_messages=8"


def workplace(manager: Manager) -> Workplace:
    return Workplace(manager.registry, Compute(), Silent())


def protect_toy(manager: Manager, target: Path, method: str = METHOD, **asked: Any) -> Path:
    """A folder as `amb protect` writes it, of the toy suite's owner."""
    facts = {"model": "toy/owner", "level": 1e-6, "self_test": "none", **asked}
    request = Request(method=manager.registry.method(method), suite=manager.registry.suite("toy"), **facts)
    return protect(request, target, workplace(manager))


def shipped(folder: Path) -> amb.VisionModel:
    """The marked model of a protected folder."""
    return amb.load_model(f"file/{folder / 'model' / 'model'}")


def shake(model: amb.VisionModel, size: float = 0.02) -> amb.VisionModel:
    """What a stranger's further training may leave: every weight moved a little."""
    moved = model.copy("stolen")
    generator = torch.Generator().manual_seed(7)
    for weight in moved.parameters():
        weight.data.add_(size * weight.data.std() * torch.randn(weight.shape, generator=generator))
    return moved
