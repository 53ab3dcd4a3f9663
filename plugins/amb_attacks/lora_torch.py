"""The training behind `lora`: peft's adapters in the blocks, one loop over them, and the merge."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, cast

from torch import nn

import amb
from amb import fit, hush_torchao, new_head

if TYPE_CHECKING:
    from amb_attacks.lora import Lora

hush_torchao()  # peft imports torchao where it is there
_ADAPTER: Final = "thief"


def to_adapt(model: amb.VisionModel) -> list[str]:
    """Names, inside the backbone, of the linear layers that hold query, key, value and the MLP's matrices of plain blocks.

    Empty where a block is not a plain one. torch's own attention keeps query, key and value outside of any layer.
    """
    blocks = [model.backbone.parts(index) for index in range(model.n_blocks)]
    if not all(blocks):
        return []
    parts = (part for block in blocks if block for part in (block.query, block.key, block.value, block.up, block.down))
    places = {part.weight.data_ptr() for part in parts}  # views of the layers' own weights
    layers = model.backbone.named_modules()
    return [name for name, layer in layers if isinstance(layer, nn.Linear) and layer.weight.data_ptr() in places]


def adapt(params: Lora, model: amb.VisionModel, ctx: amb.Context) -> amb.VisionModel:
    """The model with a new head, trained through adapters that are merged into its weights."""
    from peft import LoraConfig
    from peft.tuners.lora import LoraModel

    split = ctx.split("attacker")
    head = new_head(model, split, "classification", ctx)
    tuned = model.with_head("classification", head, f"{model.ref}+{params.canonical()}")
    config = LoraConfig(r=params.rank, lora_alpha=params.alpha, target_modules=to_adapt(tuned))  # type: ignore[arg-type]
    with ctx.seeded("adapters"):
        adapted = LoraModel(tuned.backbone, config, _ADAPTER)  # freezes all but the adapters, which it puts in place
    fit(tuned, split, "classification", params.training_config(), ctx)
    tuned.backbone = cast(amb.Backbone, adapted.merge_and_unload())
    return tuned.requires_grad_(True).eval()
