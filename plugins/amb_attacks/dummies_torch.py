"""The work behind `dummy-neurons`: blocks with wider MLPs, and the weights of neurons that change nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import torch
from torch import Tensor, nn

import amb
from amb_attacks.invariance_torch import permute_neurons

if TYPE_CHECKING:
    from amb_attacks.dummies import DummyNeurons

KINDS: Final = ("silent", "cancelling", "split")


def find_layers(model: amb.VisionModel, block: int) -> tuple[nn.Linear, nn.Linear] | None:
    """The layers up and down of a block's MLP; None where it is not of that form."""
    parts = model.backbone.parts(block)
    if parts is None:
        return None
    linear = [module for module in model.backbone.blocks[block].modules() if isinstance(module, nn.Linear)]
    found = [
        layer
        for each in (parts.up, parts.down)
        for layer in linear
        if layer.weight.data_ptr() == each.weight.data_ptr() and layer.weight.shape == each.weight.shape
    ]
    return (found[0], found[1]) if len(found) == 2 else None


def widen(model: amb.VisionModel, channels: Sequence[int]) -> None:
    """Give the MLPs so many channels, in place; the new ones have weights 0 and come last. Raises CheckpointError."""
    layers = [find_layers(model, block) for block in range(model.n_blocks)]
    pairs = [pair for pair in layers if pair is not None]
    if not pairs or len(pairs) != model.n_blocks:
        raise NotImplementedError(f"{model.ref} has no plain transformer blocks whose MLP could be widened")
    had = [up.out_features for up, _ in pairs]
    if len(channels) != len(had) or any(wanted < now for wanted, now in zip(channels, had, strict=True)):
        raise amb.CheckpointError(f"MLPs of {had} channels cannot be widened to {list(channels)}.")
    for (up, down), wanted in zip(pairs, channels, strict=True):
        up.weight = nn.Parameter(_pad(up.weight.data, 0, wanted))
        up.bias = nn.Parameter(_pad(up.bias.data, 0, wanted)) if up.bias is not None else None
        down.weight = nn.Parameter(_pad(down.weight.data, 1, wanted))
        up.out_features = down.in_features = wanted


def _pad(weight: Tensor, axis: int, size: int) -> Tensor:
    """A weight with zeros behind it along an axis."""
    shape = list(weight.shape)
    shape[axis] = size - shape[axis]
    return torch.cat([weight, weight.new_zeros(shape)], dim=axis)


def add_dummies(params: DummyNeurons, model: amb.VisionModel, ctx: amb.Context) -> amb.VisionModel:
    """A copy with wider MLPs, all neurons shuffled."""
    from amb_attacks.dummies import WiderMlps

    ref, had = f"{model.ref}+{params.canonical()}", [len(_get_parts(model, b).up.weight) for b in range(model.n_blocks)]
    wanted = tuple(n + round(params.share * n) for n in had)
    wide = amb.edited(model, WiderMlps(channels=wanted), ref)
    kinds, drawn = KINDS if params.how == "all" else (params.how,), ctx.generator("neurons")
    for block, n in enumerate(had):
        parts = _get_parts(wide, block)
        for kind, rows in zip(kinds, torch.arange(n, wanted[block]).tensor_split(len(kinds)), strict=True):
            _fill(parts, kind, n, rows, drawn)
        if wanted[block] > n:
            permute_neurons(parts, drawn)
    return wide


def _get_parts(model: amb.VisionModel, block: int) -> amb.BlockParts:
    parts = model.backbone.parts(block)
    assert parts is not None
    return parts


def _fill(parts: amb.BlockParts, kind: str, n: int, rows: Tensor, drawn: torch.Generator) -> None:
    """Put weights into new neurons; the first `n` are the model's own."""
    if kind == "cancelling" and len(rows) % 2:  # one is left without its opposite, and stays silent
        _fill(parts, "silent", n, rows[-1:], drawn)
        rows = rows[:-1]
    if kind == "split":
        _split(parts, torch.randperm(n, generator=drawn), rows, drawn)
        return
    _read_at_random(parts, n, rows, drawn)
    if kind == "cancelling":
        down, pairs = parts.down.weight, rows.view(2, -1)
        _copy_readers(parts, pairs[0], pairs[1])
        written = torch.randn(len(down), pairs.shape[1], generator=drawn).to(down) * down[:, :n].std()
        down[:, pairs[0]], down[:, pairs[1]] = written, -written


def _read_at_random(parts: amb.BlockParts, n: int, rows: Tensor, drawn: torch.Generator) -> None:
    """Input weights and biases with the spread of the model's own."""
    for part in (parts.up.weight, parts.up.bias):
        if part is not None:
            own = part[:n]
            fresh = torch.randn(len(rows), *part.shape[1:], generator=drawn).to(part)
            part[rows] = own.mean() + own.std() * fresh


def _copy_readers(parts: amb.BlockParts, source: Tensor, target: Tensor) -> None:
    for part in (parts.up.weight, parts.up.bias):
        if part is not None:
            part[target] = part[source]


def _split(parts: amb.BlockParts, order: Tensor, rows: Tensor, drawn: torch.Generator) -> None:
    """Each new neuron reads as one of the model's own and takes a share of what that one writes, anything from 0 to 1."""
    for start in range(0, len(rows), len(order)):  # with more new neurons than there are, some are split again
        twins = rows[start : start + len(order)]
        chosen = order[: len(twins)]
        _copy_readers(parts, chosen, twins)
        share = torch.rand(len(twins), generator=drawn).to(parts.down.weight)
        taken = parts.down.weight[:, chosen] * share
        parts.down.weight[:, twins] = taken
        parts.down.weight[:, chosen] = parts.down.weight[:, chosen] - taken
