"""The residual stream, read and edited: what enters a block passes through a small module of the block's own first."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final, cast

import torch
from torch import Tensor, nn

import amb
from amb_attacks.residual import ClipStream, EraseStream

if TYPE_CHECKING:
    from amb_attacks.residual import AdaptiveClip, AdaptiveErase, Carrier, Replacement, Where

_IMAGES: Final = 100  # as for the activation profile
_NAME: Final = "input_edits"


class Erase(nn.Module):
    """Put fixed values into some feature dimensions of every token."""

    fill: Tensor

    def __init__(self, dims: Sequence[int], width: int) -> None:
        super().__init__()
        if any(dim >= width for dim in dims):
            raise amb.CheckpointError(f"A stream of {width} dimensions has no dimension {max(dims)} to erase.")
        self.dims = list(dims)
        self.register_buffer("fill", torch.zeros(len(dims)))

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens, (n, tokens, dim)."""
        tokens = tokens.clone()
        tokens[:, :, self.dims] = self.fill.to(tokens.dtype)
        return tokens


class Clip(nn.Module):
    """Clamp every value at a magnitude."""

    level: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("level", torch.tensor(math.inf))

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens, (n, tokens, dim)."""
        level = self.level.to(tokens.dtype)
        return tokens.clamp(-level, level)


class Scramble(nn.Module):
    """Replace a channel over CLS and the patches, or one of these tokens, by a mean or by its values in another order."""

    def __init__(self, carrier: Carrier, index: int, how: Replacement, amount: float, seed: int, n_prefix: int) -> None:
        super().__init__()
        self.carrier, self.index, self.how, self.amount = carrier, index, how, amount
        self.seed, self.n_prefix = seed, n_prefix

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens, (n, tokens, dim)."""
        places = self._list_places(tokens.shape[1])
        where: Any = (slice(None), places, self.index)
        if self.carrier == "token":
            where = (slice(None), places[self.index])
        held = tokens[where]  # (n, values)
        tokens = tokens.clone()
        tokens[where] = held.lerp(self._make_replacement(tokens, held, places), self.amount)
        return tokens

    def _make_replacement(self, tokens: Tensor, held: Tensor, places: list[int]) -> Tensor:
        if self.how == "shuffle":  # drawn anew each time, which costs little and fits any number of tokens
            generator = torch.Generator().manual_seed(self.seed)
            return held[:, torch.randperm(held.shape[1], generator=generator).to(held.device)]
        if self.carrier == "channel":
            return held.mean(dim=1, keepdim=True)
        n_class = min(self.n_prefix, 1)
        beside = neighbours(self.index - n_class, math.isqrt(len(places) - n_class))
        return tokens[:, [places[n_class + each] for each in beside]].mean(dim=1)

    def _list_places(self, n_tokens: int) -> list[int]:
        """CLS, where there is one, and the patches; registers stand between them."""
        return [*range(min(self.n_prefix, 1)), *range(self.n_prefix, n_tokens)]


def neighbours(patch: int, side: int) -> list[int]:
    """The patches above, below, left and right of one on a square grid, row by row."""
    row, column = divmod(patch, side)
    beside = [(row - 1, column), (row + 1, column), (row, column - 1), (row, column + 1)]
    return [y * side + x for y, x in beside if 0 <= y < side and 0 <= x < side]


def before_blocks(model: amb.VisionModel, where: Where, make: Callable[[], nn.Module]) -> None:
    """Have what enters a block, or each block, pass through a module first, after those that are there already.

    It belongs to the block and is called by a hook, so the block stays what it is: its parts, its place, its names.
    """
    for block in chosen(model, where):
        if not hasattr(block, _NAME):
            block.add_module(_NAME, nn.Sequential())
            block.register_forward_pre_hook(_edit_input)
        cast(nn.Sequential, getattr(block, _NAME)).append(make().to(model.device))


def chosen(model: amb.VisionModel, where: Where) -> list[nn.Module]:
    """The blocks that are meant. Raises CheckpointError where there is no such block."""
    blocks = list(model.backbone.blocks)
    if where == "all":
        return blocks
    if where >= len(blocks):
        raise amb.CheckpointError(f"{model.ref} has no block {where} to edit the input of; it has {len(blocks)}.")
    return [blocks[where]]


def erase(params: AdaptiveErase, model: amb.VisionModel, ctx: amb.Context) -> amb.VisionModel:
    """The model with its largest dimensions of the stream put to fixed values."""
    inputs = [
        (_measure_largest(tokens), tokens.mean(dim=(0, 1))) for tokens in _record_inputs(model, params.block, ctx)
    ]
    largest = torch.stack([size for size, _ in inputs]).amax(dim=0)
    dims = sorted(largest.topk(params.dims).indices.tolist())
    edited = amb.edited(model, EraseStream(dims=tuple(dims), block=params.block), f"{model.ref}+{params.canonical()}")
    if params.fill == "mean":
        for block, (_, mean) in zip(chosen(edited, params.block), inputs, strict=True):
            _find_latest_edit(block).fill.copy_(mean[dims])
    ctx.note(dims=dims)
    return edited


def clip(params: AdaptiveClip, model: amb.VisionModel, ctx: amb.Context) -> amb.VisionModel:
    """The model with its stream clamped where a share of the values lies above."""
    edited = amb.edited(model, ClipStream(block=params.block), f"{model.ref}+{params.canonical()}")
    if not params.share:
        return edited
    levels = [_find_level(tokens, params.share) for tokens in _record_inputs(model, params.block, ctx)]
    for block, level in zip(chosen(edited, params.block), levels, strict=True):
        _find_latest_edit(block).level.copy_(level)
    ctx.note(levels=[round(level.item(), 4) for level in levels])
    return edited


@torch.no_grad()
def _record_inputs(model: amb.VisionModel, where: Where, ctx: amb.Context) -> Iterator[Tensor]:
    """The tokens of the attacker's first images as they enter the chosen blocks, (n, tokens, dim) each."""
    split = ctx.split("attacker")
    twin = model.copy().eval()  # the model may be in training
    tokens = twin.embed(split.batch(range(min(_IMAGES, len(split)))).images)
    for block in range(twin.n_blocks):
        if where in ("all", block):
            yield tokens
        tokens = twin.run_blocks(tokens, block, block + 1)


def _measure_largest(tokens: Tensor) -> Tensor:
    """The largest magnitude over an image's tokens, averaged over images; (dim,)."""
    return tokens.abs().amax(dim=1).mean(dim=0)


def _find_level(tokens: Tensor, share: float) -> Tensor:
    """The magnitude above which a share of the values lies. torch.quantile takes no more than 16 million values."""
    sizes = tokens.abs().flatten()
    return sizes.kthvalue(max(1, round(len(sizes) * (1 - share)))).values


def _find_latest_edit(block: nn.Module) -> Any:
    """The edit that was added to a block last."""
    return cast(nn.Sequential, getattr(block, _NAME))[-1]


def _edit_input(block: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    tokens, *others = inputs
    return (cast(nn.Module, getattr(block, _NAME))(tokens), *others)
