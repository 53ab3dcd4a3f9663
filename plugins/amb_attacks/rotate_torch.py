"""The work behind `rotate`: linear maps at both ends of the blocks, and matrices that read and write a turned stream."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Literal, cast

import torch
from torch import Tensor, nn

import amb
from amb_attacks.invariance_torch import REWRITES

if TYPE_CHECKING:
    from amb_attacks.rotate import Where

_MAP: Final = "token_map"


def explain_misfit(model: amb.VisionModel, what: Literal["stream", "output"]) -> str | None:
    """Why the model cannot be turned; None where it can."""
    parts = [model.backbone.parts(block) for block in range(model.n_blocks)]
    if not parts or None in parts:
        return f"{model.ref} has no plain transformer blocks, whose stream could be turned"
    tail = [part for part in model.backbone.tail if not isinstance(part, nn.Identity)]
    if len(tail) != 1 or not isinstance(tail[0], nn.LayerNorm) or not tail[0].elementwise_affine:
        return f"{model.ref} has more than one norm behind its blocks"
    if any(hasattr(block, "input_edits") or hasattr(block, _MAP) for block in model.backbone.blocks):
        return f"{model.ref} has edits in its stream, which would have to be turned as well"
    readers = [map_ for each in parts if each for map_ in (each.query, each.key, each.value, each.up)]
    if what == "stream" and any(map_.bias is None for map_ in readers):
        return f"the linear maps of {model.ref} have no bias to take up that of the norm before them"
    return None


def add_map(model: amb.VisionModel, where: Where) -> None:
    """Add a linear map, which does nothing until weights are put into it, in place. It belongs to the block or the norm."""
    places = list(model.backbone.blocks if where == "first" else model.backbone.tail)
    if not places:
        raise NotImplementedError(f"{model.ref} has no {'block' if where == 'first' else 'norm'} to add a map to")
    place = places[0]
    if hasattr(place, _MAP):
        raise amb.CheckpointError(f"{model.ref} has a linear map there already.")
    layer = nn.Linear(model.backbone.dim, model.backbone.dim).to(model.device)
    with torch.no_grad():
        layer.weight.copy_(torch.eye(model.backbone.dim))
        layer.bias.zero_()
    place.add_module(_MAP, layer)
    if where == "first":
        place.register_forward_pre_hook(_map_input)
    else:
        place.register_forward_hook(_map_output)


def _map_input(block: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    tokens, *others = inputs
    return (cast(nn.Module, getattr(block, _MAP))(tokens), *others)


def _map_output(norm: nn.Module, _: tuple[Any, ...], output: Tensor) -> Tensor:
    return cast(Tensor, getattr(norm, _MAP)(output))


def rotate_output(model: amb.VisionModel, ref: str, drawn: torch.Generator) -> amb.VisionModel:
    """A copy whose output tokens are turned, without heads."""
    from amb_attacks.rotate import MapTokens

    headless = model.copy()
    headless.heads = nn.ModuleDict()
    turned = amb.edited(headless, MapTokens(where="last"), ref)
    get_map(turned, "last").weight.data.copy_(draw_rotation(model.backbone.dim, drawn))
    return turned


@torch.no_grad()
def rotate_stream(model: amb.VisionModel, ref: str, drawn: torch.Generator) -> amb.VisionModel:
    """A copy that computes in another basis and answers the same."""
    from amb_attacks.rotate import MapTokens

    turned = amb.edited(amb.edited(model, MapTokens(where="first")), MapTokens(where="last"), ref)
    rotation = draw_rotation_of_norms(model.backbone.dim, drawn).to(model.device)
    get_map(turned, "first").weight.copy_(rotation)
    for block in range(model.n_blocks):
        parts = turned.backbone.parts(block)
        assert parts is not None
        REWRITES["norm"](parts, drawn)
        _fold_scales(parts)
        _turn_block(parts, rotation)
    norm, last = cast(nn.LayerNorm, turned.backbone.tail[0]), get_map(turned, "last")
    last.weight.copy_((norm.weight.double()[:, None] * rotation.T).float())
    norm.weight.fill_(1)
    if norm.bias is not None:
        last.bias.copy_(norm.bias)
        norm.bias.zero_()
    return turned


def get_map(model: amb.VisionModel, where: Where) -> nn.Linear:
    """The linear map that was added."""
    place = (model.backbone.blocks if where == "first" else model.backbone.tail)[0]
    return cast(nn.Linear, getattr(place, _MAP))


def draw_rotation(size: int, drawn: torch.Generator) -> Tensor:
    """A random orthogonal matrix, (size, size) double."""
    rotation: Tensor = torch.linalg.qr(torch.randn(size, size, generator=drawn, dtype=torch.float64)).Q
    return rotation


def draw_rotation_of_norms(size: int, drawn: torch.Generator) -> Tensor:
    """A random orthogonal matrix that leaves the mean of a token alone, as a norm without gain needs it to be."""
    ones = torch.ones(size, 1, dtype=torch.float64)
    basis = torch.linalg.qr(torch.cat([ones, torch.randn(size, size - 1, generator=drawn, dtype=torch.float64)], 1)).Q
    inner = torch.eye(size, dtype=torch.float64)
    inner[1:, 1:] = draw_rotation(size - 1, drawn)
    rotation: Tensor = basis @ inner @ basis.T
    return rotation


def _fold_scales(parts: amb.BlockParts) -> None:
    """LayerScale into the maps before it."""
    for scale, writer in zip(parts.scales, (parts.output, parts.down), strict=True):
        if scale is not None:
            writer.weight.mul_(scale.data[:, None])
            if writer.bias is not None:
                writer.bias.mul_(scale.data)
            scale.data.fill_(1)


def _turn_block(parts: amb.BlockParts, rotation: Tensor) -> None:
    """What reads the stream undoes the rotation first, what writes into it does it last."""
    for reader in (parts.query, parts.key, parts.value, parts.up):
        reader.weight.copy_(reader.weight.double() @ rotation.T)
    for writer in (parts.output, parts.down):
        writer.weight.copy_(rotation @ writer.weight.double())
        if writer.bias is not None:
            writer.bias.copy_(rotation @ writer.bias.double())
