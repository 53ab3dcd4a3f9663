"""The work behind `prune-structured`: torch-pruning removes heads and channels, and blocks are cut to given sizes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

import amb

Removable = Literal["heads", "channels"]


def resizable(model: amb.VisionModel) -> bool:
    """Whether it has blocks, all of them plain ones in timm's form."""
    blocks = model.backbone.blocks
    attentions = [getattr(block, "attn", None) for block in blocks]
    return bool(blocks) and all(
        isinstance(getattr(attention, "qkv", None), nn.Linear) and model.backbone.parts(index)
        for index, attention in enumerate(attentions)
    )


def sizes(model: amb.VisionModel) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """How many heads and how many MLP channels each block has, from the shapes of its weights."""
    blocks = cast(Sequence[Any], model.backbone.blocks)
    heads = tuple(block.attn.proj.in_features // block.attn.head_dim for block in blocks)
    return heads, tuple(block.mlp.fc2.in_features for block in blocks)


def remove(model: amb.VisionModel, part: Removable, amount: float) -> amb.VisionModel:
    """A copy whose matrices lack the weakest share of heads or channels; its blocks do not know of it yet."""
    import torch_pruning

    pruned = model.copy()
    pruned.requires_grad_(True)  # the graph is traced along gradients
    side = pruned.backbone.image_size
    graph = torch_pruning.DependencyGraph().build_dependency(
        pruned, torch.zeros(1, 3, side, side), forward_fn=amb.VisionModel.tokens, verbose=False
    )
    strength = torch_pruning.importance.GroupMagnitudeImportance(p=2, normalizer=None)
    cut = torch_pruning.prune_linear_in_channels
    for block in cast(Sequence[Any], pruned.backbone.blocks):
        layer, width = (block.attn.proj, block.attn.head_dim) if part == "heads" else (block.mlp.fc2, 1)
        group = graph.get_pruning_group(layer, cut, list(range(layer.in_features)))  # with all that feeds the layer
        weakest = _find_weakest(strength(group), width, amount)
        if weakest:
            graph.get_pruning_group(layer, cut, weakest).prune()
    return pruned


def _find_weakest(strengths: Tensor, width: int, amount: float) -> list[int]:
    """Indices of the weakest share of units, each of them `width` neighbouring channels wide."""
    units = strengths.view(-1, width).sum(dim=1)
    n_removed = min(round(amount * len(units)), len(units) - 1)
    chosen = units.argsort(stable=True)[:n_removed].tolist()
    return [unit * width + channel for unit in sorted(chosen) for channel in range(width)]


def narrow(model: amb.VisionModel, heads: Sequence[int], channels: Sequence[int]) -> None:
    """Cut the blocks to these sizes, in place: of heads and channels the first stay."""
    if not resizable(model):
        raise NotImplementedError(f"{model.ref} has no plain transformer blocks that could be cut to other widths")
    now = sizes(model)
    fits = all(
        len(wanted) == len(had) and all(map(int.__le__, wanted, had))
        for wanted, had in zip((heads, channels), now, strict=True)
    )
    if not fits:
        raise amb.CheckpointError(
            f"Blocks of {now[0]} heads and {now[1]} channels cannot be cut to {heads}, {channels}."
        )
    for block, n_heads, n_channels in zip(cast(Sequence[Any], model.backbone.blocks), heads, channels, strict=True):
        attention, mlp = block.attn, block.mlp
        rows = [part[: n_heads * attention.head_dim] for part in torch.arange(attention.qkv.out_features).chunk(3)]
        attention.num_heads, attention.attn_dim = n_heads, n_heads * attention.head_dim
        _keep_rows_and_columns(attention.qkv, rows=torch.cat(rows))
        _keep_rows_and_columns(attention.proj, columns=torch.arange(attention.attn_dim))
        _keep_rows_and_columns(mlp.fc1, rows=torch.arange(n_channels))
        _keep_rows_and_columns(mlp.fc2, columns=torch.arange(n_channels))


def _keep_rows_and_columns(layer: nn.Linear, rows: Tensor | None = None, columns: Tensor | None = None) -> None:
    """Leave a layer these of its outputs, or these of its inputs."""
    device = layer.weight.device
    if rows is not None:
        layer.weight = nn.Parameter(layer.weight.data[rows.to(device)])
        layer.bias = nn.Parameter(layer.bias.data[rows.to(device)]) if layer.bias is not None else None
    if columns is not None:
        layer.weight = nn.Parameter(layer.weight.data[:, columns.to(device)])
    layer.out_features, layer.in_features = layer.weight.shape
