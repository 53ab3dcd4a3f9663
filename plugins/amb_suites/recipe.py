"""The recipe of the embedded models: `python -m amb_suites.recipe [NAME ...]` trains them again, about 10 minutes each.

Every model learns to name the digit and to find its ink, on compositions that never repeat.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor
from torch.nn import functional as F

import amb
from amb import ClassificationHead, SegmentationHead
from amb_suites.digits import N_CLASSES, compose
from amb_suites.tiny import WEIGHTS

VIT: Final[Mapping[str, Any]] = {
    "loader": "timm",
    "name": "vit_tiny_patch16_224",
    "options": {"img_size": 32, "patch_size": 4, "embed_dim": 96, "depth": 6, "num_heads": 3},  # 65 tokens
}
REGISTERS: Final = {**VIT, "options": {**VIT["options"], "reg_tokens": 4}}
CONVNET: Final[Mapping[str, Any]] = {
    "loader": "timm",
    "name": "resnet10t",
    "image_size": 32,
    "options": {"channels": [32, 64, 96, 128], "output_stride": 8},  # a map of 4 x 4 places
}


@dataclass(frozen=True)
class Recipe:
    """How one model is trained."""

    architecture: Mapping[str, Any]
    seed: int
    split: str = "owner"
    side: int = 4  # pixels across one token, for the mask
    steps: int = 2000
    batch: int = 128
    peak_rate: float = 2e-3  # one cycle, 10 % warm-up
    weight_decay: float = 0.05
    clip: float = 1.0  # norm of the gradient
    teacher: str = ""  # a student learns this model's embeddings and class probabilities instead of labels


RECIPES: Final = {
    "owner": Recipe(VIT, seed=1),
    "other-seed": Recipe(VIT, seed=2),
    "other-data": Recipe(VIT, seed=3, split="attacker", steps=1200),
    "registers": Recipe(REGISTERS, seed=4, steps=1200),
    "convnet": Recipe(CONVNET, seed=5, side=8, steps=1200),
    "convnet-other-data": Recipe(CONVNET, seed=6, side=8, split="attacker", steps=1200),
    "distilled": Recipe(VIT, seed=8, split="attacker", steps=1600, teacher="owner"),
    "random": Recipe(VIT, seed=7, steps=0),
}


def train(recipe: Recipe) -> amb.VisionModel:
    """Train a model from scratch: class and mask together, one visible loop."""
    teacher = amb.load_model(f"tiny/{recipe.teacher}") if recipe.teacher else None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)  # timm draws initial weights and dropout from the global generator
        bare = amb.build_model(recipe.architecture)
        dim = bare.backbone.dim
        heads = {
            "classification": ClassificationHead(dim, N_CLASSES),
            "segmentation": SegmentationHead(dim, 2, recipe.side),
        }
        model = amb.VisionModel(bare.ref, bare.architecture, bare.backbone, heads).train()
        optimizer = torch.optim.AdamW(model.parameters(), recipe.peak_rate, weight_decay=recipe.weight_decay)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, recipe.peak_rate, max(1, recipe.steps), pct_start=0.1)
        for step in range(recipe.steps):
            batch = compose(recipe.split, range(step * recipe.batch, (step + 1) * recipe.batch))
            assert batch.masks is not None
            tokens = model.tokens(batch.images)
            size = batch.images.shape[-1]
            logits = model.apply_head(tokens, "classification", size)
            named = (
                _measure_imitation(teacher, batch, tokens, logits) if teacher else F.cross_entropy(logits, batch.labels)
            )
            found = F.cross_entropy(model.apply_head(tokens, "segmentation", size), batch.masks)
            optimizer.zero_grad()
            (named + found).backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.clip)
            optimizer.step()
            schedule.step()
            if step % 100 == 99:
                print(
                    f"step {step + 1}/{recipe.steps}  label {named:.3f}  mask {found:.3f}", file=sys.stderr, flush=True
                )
    return model.eval()


def _measure_imitation(teacher: amb.VisionModel, batch: amb.Batch, tokens: Tensor, logits: Tensor) -> Tensor:
    """Squared error of the output tokens, and the divergence from the teacher's class probabilities (Hinton, T = 1)."""
    with torch.no_grad():
        taught = teacher.tokens(batch.images)
        classes = teacher.apply_head(taught, "classification", batch.images.shape[-1]).log_softmax(dim=1)
    apart = F.kl_div(logits.log_softmax(dim=1), classes, reduction="batchmean", log_target=True)
    return F.mse_loss(tokens, taught) + apart


@torch.no_grad()
def figures_on_test(model: amb.VisionModel, n: int = 2048) -> dict[str, float]:
    """Accuracy and mean IoU of the mask on `n` compositions of scans that no model has seen."""
    from torchmetrics.functional.segmentation import mean_iou  # slow to import, and the untrained model needs none

    batch = compose("test", range(n))
    assert batch.masks is not None
    tokens, side = model.tokens(batch.images), batch.images.shape[-1]
    labels = model.apply_head(tokens, "classification", side).argmax(dim=1)
    masks = model.apply_head(tokens, "segmentation", side).argmax(dim=1)
    ious = mean_iou(masks, batch.masks, num_classes=2, input_format="index", per_class=True)
    return {
        "accuracy": round((labels == batch.labels).float().mean().item(), 4),
        "miou": round(ious.mean().item(), 4),
    }


def make(name: str, folder: Path) -> None:
    """Train one model and write it with its card."""
    recipe = RECIPES[name]
    model = train(recipe).half().float()  # the precision in which it is shipped
    settings = {key: value for key, value in asdict(recipe).items() if key != "architecture"}
    about = {
        "recipe": f"python -m amb_suites.recipe {name}",
        **settings,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "versions": {package: version(package) for package in ("torch", "timm", "scikit-learn")},
        "test": figures_on_test(model),
        "data": "UCI handwritten digits, scikit-learn's copy (CC BY 4.0)",
        "license": "Apache-2.0",
    }
    card = amb.save_checkpoint(model, folder / name, about, half=True)
    print(f"{name}: {about['test']}, digest {card.digest}", flush=True)


if __name__ == "__main__":
    WEIGHTS.mkdir(exist_ok=True)
    for wanted in sys.argv[1:] or RECIPES:
        make(wanted, WEIGHTS)
