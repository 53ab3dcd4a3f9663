"""The work behind `soup`: fine-tunes one after the other, and their running mean."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch

import amb
from amb import fit, new_head

if TYPE_CHECKING:
    from amb_attacks.soup import Soup


def average_fine_tunes(params: Soup, model: amb.VisionModel, ctx: amb.Context) -> amb.VisionModel:
    """The uniform average of `n` fine-tunes that start from the same head."""
    split = ctx.split("attacker")
    head = new_head(model, split, "classification", ctx)
    start = model.with_head("classification", head, f"{model.ref}+{params.canonical()}")
    start.requires_grad_(True)
    mean = start.copy()
    for turn in range(params.n):
        theirs = replace(ctx, axes=(*ctx.axes, "soup", str(turn)))
        tuned = fit(start.copy(), split, "classification", params.training_config(), theirs)
        _move_mean(mean, tuned, turn)
    return mean.eval()


@torch.no_grad()
def _move_mean(mean: amb.VisionModel, tuned: amb.VisionModel, n_before: int) -> None:
    """Take one more model into a mean over weights and statistics; with none before it is that model."""
    state = tuned.state_dict()
    for name, tensor in mean.state_dict().items():
        if tensor.is_floating_point():
            tensor.lerp_(state[name], 1 / (n_before + 1))
        else:
            tensor.copy_(state[name])
