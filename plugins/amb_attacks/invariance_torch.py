"""The four rewritings behind `invariance`: other weights in a block's parts, the same function."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Final

import torch
from torch import Tensor, nn

import amb

_IMAGES: Final = 100
_TOLERANCE: Final = 1e-4
_STRETCH: Final = 2.0  # axes of a head's space are scaled by up to this factor, so the basis stays well-conditioned


def permute_neurons(parts: amb.BlockParts, generator: torch.Generator) -> None:
    """Hidden neurons of the MLP in another order: rows of the map up, columns of the map down."""
    order = torch.randperm(len(parts.up.weight), generator=generator).to(parts.up.weight.device)
    _write_rows(parts.up, lambda each: each[order])
    parts.down.weight.copy_(parts.down.weight[:, order])


def permute_heads(parts: amb.BlockParts, generator: torch.Generator) -> None:
    """Attention heads in another order: the rows that make a head's input, the columns that read its output."""
    order = torch.randperm(parts.n_heads, generator=generator).to(parts.query.weight.device)
    for each in (parts.query, parts.key, parts.value):
        _write_rows(each, lambda rows: rows.view(parts.n_heads, -1)[order].view_as(rows))
    columns = parts.output.weight.view(len(parts.output.weight), parts.n_heads, -1)
    parts.output.weight.copy_(columns[:, order].flatten(1, 2))


def fold_norms(parts: amb.BlockParts, generator: torch.Generator) -> None:
    """Gains and biases of both norms into the maps that read them: W (g z + b) + c = (W g) z + (W b + c)."""
    _fold_norm(parts.norm1, parts.query, parts.key, parts.value)
    _fold_norm(parts.norm2, parts.up)


def change_basis(parts: amb.BlockParts, generator: torch.Generator) -> None:
    """In each head q -> A q with k -> A^-T k, and v -> B v with the output map reading B^-1."""
    n, head_dim = parts.n_heads, len(parts.query.weight) // parts.n_heads
    forward, inverse = _draw_bases(n, head_dim, generator, parts.query.weight.device)
    _turn_heads(parts.query, forward)
    _turn_heads(parts.key, inverse.mT)
    forward, inverse = _draw_bases(n, head_dim, generator, parts.query.weight.device)
    _turn_heads(parts.value, forward)
    columns = parts.output.weight.double().view(-1, n, head_dim)  # (dim, heads, head_dim)
    parts.output.weight.copy_(torch.einsum("ohd,hde->ohe", columns, inverse).flatten(1, 2))


REWRITES: Final[Mapping[str, Callable[[amb.BlockParts, torch.Generator], None]]] = {
    "neurons": permute_neurons,
    "heads": permute_heads,
    "norm": fold_norms,
    "basis": change_basis,
}


def require_same_function(attack: str, model: amb.VisionModel, other: amb.VisionModel, ctx: amb.Context) -> None:
    """Raise AmbError where the output embeddings of the attacker's first images have moved; note by how much."""
    split = ctx.split("attacker")
    moved = difference(model, other, split.batch(range(min(_IMAGES, len(split)))).images)
    if not moved <= _TOLERANCE:  # also where it is no number
        raise amb.AmbError(f"attack {attack}: the features of {model.ref} moved by {moved:.1e} of the largest.")
    ctx.note(features_moved=moved)


@torch.no_grad()
def difference(model: amb.VisionModel, other: amb.VisionModel, images: Tensor) -> float:
    """Largest difference between two models' output embeddings, divided by the first one's largest magnitude."""
    twins = (
        each.copy().eval() for each in (model, other)
    )  # as they are: a rounded answer may jump at a hair's breadth
    ours, theirs = (twin.backbone.pool(twin.tokens(images)) for twin in twins)
    return ((ours - theirs).abs().max() / ours.abs().max()).item()


def _write_rows(part: amb.Affine, change: Callable[[Tensor], Tensor]) -> None:
    """Write into the weight and the bias, where there is one, what becomes of their rows."""
    part.weight.copy_(change(part.weight))
    if part.bias is not None:
        part.bias.copy_(change(part.bias))


def _turn_heads(part: amb.Affine, bases: Tensor) -> None:
    """Multiply each head's rows from the left by its own matrix, (heads, head_dim, head_dim)."""
    weight = part.weight.double().view(*bases.shape[:2], -1)
    part.weight.copy_((bases @ weight).flatten(0, 1))
    if part.bias is not None:
        bias = part.bias.double().view(len(bases), -1, 1)
        part.bias.copy_((bases @ bias).flatten())


def _draw_bases(n: int, size: int, generator: torch.Generator, device: torch.device) -> tuple[Tensor, Tensor]:
    """Random matrices Q S, Q orthogonal and S diagonal, with their inverses S^-1 Q^T; (n, size, size) each."""
    normal = torch.randn(n, size, size, generator=generator, dtype=torch.float64)
    turns = torch.linalg.qr(normal).Q
    draws = 2 * torch.rand(n, 1, size, generator=generator, dtype=torch.float64) - 1
    scales = torch.exp(draws * math.log(_STRETCH))
    return (turns * scales).to(device), (turns / scales).mT.to(device)


def _fold_norm(norm: nn.LayerNorm, *readers: amb.Affine) -> None:
    """Leave the norm without gain and bias of its own."""
    if not norm.elementwise_affine:  # it never had any
        return
    for reader in readers:
        if norm.bias is not None and reader.bias is not None:
            reader.bias.add_(reader.weight @ norm.bias.data)
        reader.weight.mul_(norm.weight.data)  # gain j scales column j
    norm.weight.data.fill_(1)
    if norm.bias is not None:
        norm.bias.data.fill_(0)
