"""What of the suite's models is trained here: the owner's head for its own job, and innocent models of other origin."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import torch

import amb
from amb import TrainingConfig
from amb_suites.photos import SIDE, PhotosSuite
from amb_suites.photos.convert import convert

VIT: Final[Mapping[str, Any]] = {
    "loader": "timm",
    "name": "vit_tiny_patch16_224",
    "options": {"img_size": SIDE, "patch_size": 14, "embed_dim": 192, "depth": 6, "num_heads": 3},
}
CONVNET: Final[Mapping[str, Any]] = {"loader": "timm", "name": "resnet10t", "image_size": SIDE, "options": {}}
HEAD: Final = TrainingConfig("cosine", epochs=4, batch=32, n_images=1536, layers="head")
SCRATCH: Final = TrainingConfig("cosine", lr=1e-3, weight_decay=0.05, epochs=8, batch=32, n_images=4096)


def make_owner(onnx_file: bytes, ctx: amb.Context) -> amb.VisionModel:
    """The real backbone, untouched, with a linear head that finds the foreground."""
    with tempfile.TemporaryDirectory() as folder:
        convert(onnx_file, Path(folder) / "dinov2", SIDE)
        encoder = amb.load_model(f"file/{folder}/dinov2")
    return amb.tune(encoder, ctx.split("owner"), "segmentation", HEAD, ctx)


def make_random(owner: amb.VisionModel, ctx: amb.Context) -> amb.VisionModel:
    """The owner's architecture with random weights."""
    with ctx.seeded("weights"):
        return amb.build_model(owner.architecture)


def train_vit(ctx: amb.Context) -> amb.VisionModel:
    """A small transformer that learns the classes from random weights."""
    return _train_from_scratch(VIT, ctx)


def train_convnet(ctx: amb.Context) -> amb.VisionModel:
    """A small residual network that learns the classes from random weights."""
    return _train_from_scratch(CONVNET, ctx)


def _train_from_scratch(architecture: Mapping[str, Any], ctx: amb.Context) -> amb.VisionModel:
    with ctx.seeded("weights"):
        model = amb.build_model(architecture)
    return amb.tune(model, ctx.split("owner"), "classification", SCRATCH, ctx)


def open_context(name: str, folder: Path, progress: Callable[[], Any]) -> amb.Context:
    """The owner's images and the test images, and a seed for each model."""
    roles: tuple[amb.Role, ...] = ("owner", "attacker", "test")
    splits = {role: PhotosSuite().split(role) for role in roles}
    return amb.Context(("photos", name), splits, folder, progress=progress())


@torch.no_grad()
def describe(model: amb.VisionModel, ctx: amb.Context) -> dict[str, float]:
    """How well a model does on the judge's photographs."""
    return amb.measure_utility(model, ctx)
