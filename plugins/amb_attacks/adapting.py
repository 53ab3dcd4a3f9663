"""The training behind `lora`: peft's adapters in the blocks, one loop over them, and the merge."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from torch import nn

import amb
from amb.tuning import Schedule, fit, new_head
from amb_attacks.quiet import hush_torchao

if TYPE_CHECKING:
    from amb_attacks.lora import Lora

hush_torchao()  # peft imports torchao where it is there
ADAPTED: Final = r"net\.blocks\.\d+\.(attn\.qkv|mlp\.fc1|mlp\.fc2)"
"""What the layers to adapt are called inside a backbone; timm's names."""
_ADAPTER: Final = "thief"


def adaptable(model: amb.VisionModel) -> bool:
    """Whether the blocks are plain ones, with linear layers of these names."""
    if not all(model.backbone.parts(index) for index in range(model.n_blocks)):
        return False
    layers = model.backbone.named_modules()
    return any(re.fullmatch(ADAPTED, name) and isinstance(layer, nn.Linear) for name, layer in layers)


def adapt(params: Lora, model: amb.VisionModel, ctx: amb.Context) -> amb.VisionModel:
    """The model with a new head, trained through adapters that are merged into its weights."""
    from peft import LoraConfig
    from peft.tuners.lora import LoraModel

    split = ctx.split("attacker")
    head = new_head(model, split, "classification", ctx)
    tuned = model.with_head("classification", head, f"{model.ref}+{params.canonical()}")
    config = LoraConfig(r=params.rank, lora_alpha=params.alpha, target_modules=ADAPTED)  # type: ignore[arg-type]
    with ctx.seeded("adapters"):
        adapted = LoraModel(tuned.backbone, config, _ADAPTER)  # freezes all but the adapters, which it puts in place
    fit(tuned, split, "classification", _schedule(params), ctx)
    tuned.backbone = adapted.merge_and_unload()
    return tuned.requires_grad_(True).eval()


def _schedule(params: Lora) -> Schedule:
    return Schedule(
        params.schedule,
        lr=params.lr,
        head_lr=params.head_lr,
        weight_decay=params.weight_decay,
        epochs=params.epochs,
        batch=params.batch,
        n_images=params.n_images,
    )
