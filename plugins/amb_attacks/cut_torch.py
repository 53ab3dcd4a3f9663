"""The training behind `cut-rear`: the last blocks start anew, behind a front that stays frozen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import nn

import amb
from amb import fit, new_head

if TYPE_CHECKING:
    from amb_attacks.cut import CutRear


def retrain_rear(params: CutRear, model: amb.VisionModel, ctx: amb.Context) -> amb.VisionModel:
    """A copy whose last blocks start from random weights and are trained together with a new head."""
    split = ctx.split("attacker")
    head = new_head(model, split, "classification", ctx)
    cut = model.with_head("classification", head, f"{model.ref}+{params.canonical()}")
    rear = cut.backbone.blocks[cut.n_blocks - params.n :]
    _renew_blocks(rear, model, ctx)
    cut.backbone.requires_grad_(False)
    for block in rear:
        block.requires_grad_(True)
    return fit(cut, split, "classification", params.training_config(), ctx)


def _renew_blocks(blocks: Sequence[nn.Module], model: amb.VisionModel, ctx: amb.Context) -> None:
    """Give the blocks the initial weights that their library gives them."""
    with ctx.seeded("rear"):
        fresh = amb.build_model(model.architecture)
    for block, new in zip(blocks, fresh.backbone.blocks[model.n_blocks - len(blocks) :], strict=True):
        block.load_state_dict(new.state_dict())
