"""Rewriting undone: a suspect's weights put into the form of the unmarked model, whose key-independence keeps the null exact.

Everything here looks at the suspect and at the unmarked model, never at a key or at the marked model: given the two, the
carriers are as random as before. A part of a block is changed only where that brings it much nearer to the unmarked one.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, NamedTuple, TypeVar

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn
from torch.nn import functional as F

import amb

_NEAR: Final = 0.1
"""Distance from the unmarked part, in its standard deviations, up to which there is nothing to undo."""
_NEARER: Final = 0.8
"""What a distance has to fall to, so that a form is taken: fitting a basis to nothing but noise leaves .9 of it."""
_SAME_STREAM: Final = 0.5
"""Mean cosine of the tokens that leave block 0 from which the residual stream has the same basis."""
_TWINS: Final = 1e-3
"""Relative distance up to which two neurons read the same."""
_IMAGES: Final = 16
_STEPS: Final = 5


class Mlp(NamedTuple):
    """The two matrices of an MLP, neuron by neuron."""

    up: Tensor  # (neurons, dim)
    down: Tensor  # (neurons, dim): the map down, transposed


class Attention(NamedTuple):
    """The four matrices of an attention, head by head, (heads, size, dim) each."""

    query: Tensor
    key: Tensor
    value: Tensor
    output: Tensor  # transposed


Part = Mlp | Attention
P = TypeVar("P", Mlp, Attention)


def align(suspect: amb.VisionModel, base: amb.VisionModel) -> tuple[amb.VisionModel, dict[str, object]]:
    """The suspect in the form of the unmarked model, and what was undone; itself where there was nothing to undo.

    A weight that the suspect has not got, as a neuron that was removed, is 0 in the result and so says nothing.
    """
    suspect = restore_layers(suspect)
    if not _has_parts(suspect) or not _has_parts(base) or suspect.n_blocks != base.n_blocks:
        return suspect, {}
    turn = find_turn(suspect, base)
    aligned, undone = _align_blocks(suspect, base, turn)
    if turn is not None:  # the tokens gave a first guess; all weights together give a better one
        turn = turn @ _find_rotation(_list_stream_rows(aligned), _list_stream_rows(base))
        aligned, undone = _align_blocks(suspect, base, turn)
    if turn is None and not undone:
        return suspect, {}
    return aligned, {"turned": turn is not None, "parts_rewritten": undone}


@torch.no_grad()
def restore_layers(model: amb.VisionModel) -> amb.VisionModel:
    """Layers of another arithmetic, such as int8, as plain ones with the weights by which they multiply; else the model itself.

    The weights are what such a layer makes of unit vectors, whatever form it keeps them in.
    """
    if not list(_find_odd_layers(model)):
        return model
    plain = model.copy()
    for parent, name, layer in list(_find_odd_layers(plain)):
        still = layer(torch.zeros(1, layer.in_features, device=model.device))
        weight = (layer(torch.eye(layer.in_features, device=model.device)) - still).T
        restored = nn.Linear(layer.in_features, layer.out_features, device=model.device)
        restored.weight.copy_(weight)
        restored.bias.copy_(still[0])
        setattr(parent, name, restored)
    return plain


def _find_odd_layers(model: amb.VisionModel) -> Iterator[tuple[nn.Module, str, Any]]:
    """Parent, name and layer of what maps vectors of so many features to so many and is no plain linear layer."""
    for parent in model.backbone.modules():
        for name, layer in parent.named_children():
            sizes = [getattr(layer, each, None) for each in ("in_features", "out_features")]
            if not isinstance(layer, nn.Linear) and all(isinstance(size, int) for size in sizes):
                yield parent, name, layer


def _has_parts(model: amb.VisionModel) -> bool:
    return model.n_blocks > 0 and all(model.backbone.parts(block) is not None for block in range(model.n_blocks))


# The residual stream


@torch.no_grad()
def find_turn(suspect: amb.VisionModel, base: amb.VisionModel) -> Tensor | None:
    """The rotation R, (dim, dim), with which the suspect's stream times R is nearest to the base's; None where it has its basis."""
    size = base.backbone.image_size
    images = torch.rand(_IMAGES, len(base.backbone.mean), size, size, generator=torch.Generator().manual_seed(0))
    theirs, ours = (model.prefix(images, 0).double().cpu() for model in (suspect, base))
    if theirs.shape != ours.shape or F.cosine_similarity(theirs, ours, dim=2).mean() >= _SAME_STREAM:
        return None
    return _find_rotation(theirs.flatten(0, 1), ours.flatten(0, 1))


def _find_rotation(theirs: Tensor, ours: Tensor) -> Tensor:
    """Orthogonal Procrustes: the R that brings theirs @ R nearest to ours."""
    left, _, right = torch.linalg.svd(theirs.T @ ours)
    rotation: Tensor = left @ right
    return rotation


def _list_stream_rows(model: amb.VisionModel) -> Tensor:
    """Every row of the blocks' matrices that lies in the stream, gains folded in, (rows, dim)."""
    rows = []
    for block in range(model.n_blocks):
        gains, (attention, mlp) = _read_gains(_get_parts(model, block)), read_block(_get_parts(model, block))
        rows += [each.flatten(0, 1) * gains.norm1 for each in attention[:3]]
        rows += [attention.output.flatten(0, 1), mlp.up * gains.norm2, mlp.down]
    return torch.cat(rows)


# Blocks


def _align_blocks(suspect: amb.VisionModel, base: amb.VisionModel, turn: Tensor | None) -> tuple[amb.VisionModel, int]:
    """A copy of the base that holds the suspect's weights, block by block in the form that is nearest; parts rewritten."""
    twin, undone = base.copy(suspect.ref), 0
    _copy_matrices(suspect, twin, turn)
    for block in range(base.n_blocks):
        theirs, ours = _get_parts(suspect, block), _get_parts(base, block)
        scale = _divide_gains(_read_gains(theirs), _read_gains(ours))
        (attention, mlp), (our_attention, our_mlp) = read_block(theirs, turn), read_block(ours)
        attention, heads_changed = _choose_nearest(our_attention, _list_attentions(our_attention, attention, scale))
        mlp, neurons_changed = _choose_nearest(our_mlp, _list_mlps(our_mlp, mlp, scale))
        _write_block(_get_parts(twin, block), attention, mlp)
        undone += heads_changed + neurons_changed
    return twin, undone


def _copy_matrices(suspect: amb.VisionModel, twin: amb.VisionModel, turn: Tensor | None) -> None:
    """What the suspect holds under the same name and in the same shape; 0 elsewhere. What feeds the stream may be turned."""
    theirs = {matrix.name: matrix.weight for matrix in suspect.matrices()}
    for matrix in twin.matrices():
        weight = theirs.get(matrix.name)
        if weight is None or weight.shape != matrix.weight.shape:
            matrix.weight.zero_()
            continue
        weight = weight.double().cpu()
        if turn is not None and len(weight) == len(turn):
            forms, ours = (weight, torch.tensordot(turn.T, weight, dims=1)), matrix.weight.double().cpu()
            weight = min(forms, key=lambda form: float((form - ours).norm()))
        matrix.weight.copy_(weight)


class Gains(NamedTuple):
    """What acts on the stream beside the matrices of a block, (dim,) each: of both norms, and of LayerScale behind them."""

    norm1: Tensor
    norm2: Tensor
    scale1: Tensor
    scale2: Tensor


def _read_gains(parts: amb.BlockParts) -> Gains:
    """1 where a block has none."""
    ones = torch.ones(parts.up.weight.shape[1], dtype=torch.float64)
    held = (_get_gain(parts.norm1), _get_gain(parts.norm2), *parts.scales)
    return Gains(*(ones if each is None else each.detach().double().cpu() for each in held))


def _get_gain(norm: nn.LayerNorm) -> Tensor | None:
    return norm.weight if norm.elementwise_affine else None


def _divide_gains(theirs: Gains, ours: Gains) -> Gains:
    """What turns their matrices into those that do the same beside our gains; 1 where ours is 0."""
    pairs = zip(theirs, ours, strict=True)
    return Gains(*(torch.where(our == 0, torch.ones_like(our), their / our) for their, our in pairs))


def _get_parts(model: amb.VisionModel, block: int) -> amb.BlockParts:
    parts = model.backbone.parts(block)
    assert parts is not None
    return parts


def read_block(parts: amb.BlockParts, turn: Tensor | None = None) -> tuple[Attention, Mlp]:
    """The matrices of a block; with a turn, in the basis of the stream that it leads to."""
    rows = (parts.query.weight, parts.key.weight, parts.value.weight, parts.output.weight.T)
    heads = [torch.unflatten(each.detach().double().cpu(), 0, (parts.n_heads, -1)) for each in rows]
    neurons = [each.detach().double().cpu() for each in (parts.up.weight, parts.down.weight.T)]
    if turn is not None:
        heads, neurons = [each @ turn for each in heads], [each @ turn for each in neurons]
    return Attention(*heads), Mlp(*neurons)


def _write_block(parts: amb.BlockParts, attention: Attention, mlp: Mlp) -> None:
    maps = (parts.query, parts.key, parts.value)
    for each, rows in zip(maps, attention[:3], strict=True):
        each.weight.copy_(rows.flatten(0, 1))
    parts.output.weight.copy_(attention.output.flatten(0, 1).T)
    parts.up.weight.copy_(mlp.up)
    parts.down.weight.copy_(mlp.down.T)


# Parts


def _choose_nearest(ours: P, forms: Iterator[P]) -> tuple[P, bool]:
    """Of the forms of a part the nearest, and whether it is another than the first, which is the suspect's own.

    The simpler come first, and a form has to be much nearer than those before it.
    """
    best = next(forms)
    distance, changed = measure_distance(ours, best), False
    for form in forms if distance > _NEAR else ():
        if (reached := measure_distance(ours, form)) < _NEARER * distance:
            best, distance, changed = form, reached, True
    return (best if _fits(ours, best) else _blank(ours)), changed


def _blank(part: P) -> P:
    """A part that says nothing."""
    return type(part)(*(torch.zeros_like(each) for each in part))


def _fits(ours: Part, theirs: Part) -> bool:
    return all(our.shape == their.shape for our, their in zip(ours, theirs, strict=True))


def measure_distance(ours: Part, theirs: Part) -> float:
    """Root mean square of the differences, each in standard deviations of our matrix; zeros are left out, as in reading."""
    if not _fits(ours, theirs):
        return float("inf")
    total, n = 0.0, 0
    for our, their in zip(ours, theirs, strict=True):
        kept = their != 0
        total += (((their - our) / our.std())[kept] ** 2).sum().item()
        n += int(kept.sum())
    return (total / n) ** 0.5 if n else float("inf")


def _list_mlps(ours: Mlp, theirs: Mlp, scale: Gains) -> Iterator[Mlp]:
    """An MLP as it is, with norms folded, and both with neurons matched."""
    forms = [theirs, Mlp(theirs.up * scale.norm2, theirs.down * scale.scale2)]
    yield from forms
    yield from (match_neurons(ours, form) for form in forms)


def _list_attentions(ours: Attention, theirs: Attention, scale: Gains) -> Iterator[Attention]:
    """An attention as it is, with norms folded, both with heads matched, and those with bases fitted."""
    query, key, value = (each * scale.norm1 for each in theirs[:3])
    forms = [theirs, Attention(query, key, value, theirs.output * scale.scale1)]
    yield from forms
    if ours.query.shape[1:] == theirs.query.shape[1:]:
        forms = [match_heads(ours, form) for form in forms]
        yield from forms
        yield from (fit_bases(ours, form) for form in forms)


def match_neurons(ours: Mlp, theirs: Mlp) -> Mlp:
    """Their neurons in our order: those that read the same made one, each of ours given the nearest, the rest dropped."""
    theirs = _merge_twins(theirs)
    spreads = [each.std() for each in ours]
    rows, columns = (
        torch.cat([each / spread for each, spread in zip(part, spreads, strict=True)], dim=1) for part in (ours, theirs)
    )
    return Mlp(*_take(theirs, torch.cdist(rows, columns).square(), len(ours.up)))


def _merge_twins(mlp: Mlp) -> Mlp:
    """Neurons with the same input weights become one that does what they did together.

    Their biases are not compared: twins that differ in them alone are unlikely, and the worst is a wrong order.
    """
    apart = torch.cdist(mlp.up, mlp.up) > _TWINS * mlp.up.norm(dim=1)
    first = (~apart).double().argmax(dim=1)  # the first neuron that reads the same as this one
    kept, place = first.unique(return_inverse=True)
    down = torch.zeros(len(kept), mlp.down.shape[1], dtype=mlp.down.dtype).index_add_(0, place, mlp.down)
    return Mlp(mlp.up[kept], down)


def match_heads(ours: Attention, theirs: Attention) -> Attention:
    """Their heads in our order, by what no basis changes: the products of query and key, and of output and value."""
    cost = sum(_compare_products(*ours[pair], *theirs[pair]) for pair in (slice(0, 2), slice(2, 4)))
    assert isinstance(cost, Tensor)
    return Attention(*_take(theirs, cost, len(ours.query)))


def _compare_products(first: Tensor, second: Tensor, their_first: Tensor, their_second: Tensor) -> Tensor:
    """Squared distance of each of our first^T second to each of theirs, in units of their mean size, (ours, theirs)."""

    def multiply(one: tuple[Tensor, Tensor], other: tuple[Tensor, Tensor]) -> Tensor:
        products = (torch.einsum("aid,bjd->abij", a, b) for a, b in zip(one, other, strict=True))
        return torch.mul(*products).sum(dim=(2, 3))  # <first^T second, first'^T second'>

    ours, theirs = (first, second), (their_first, their_second)
    sizes = multiply(ours, ours).diagonal(), multiply(theirs, theirs).diagonal()
    return (sizes[0][:, None] + sizes[1][None, :] - 2 * multiply(ours, theirs)) / sizes[0].mean()


def _take(units: Part, cost: Tensor, n: int) -> list[Tensor]:
    """The units that cost least for each of ours, in our order; zeros where there are too few."""
    places, chosen = (torch.from_numpy(each) for each in linear_sum_assignment(cost.nan_to_num(1e9).numpy()))
    taken = [each.new_zeros(n, *each.shape[1:]) for each in units]
    for into, each in zip(taken, units, strict=True):
        into[places] = each[chosen]
    return taken


def fit_bases(ours: Attention, theirs: Attention) -> Attention:
    """Their heads in our bases: B with B query and B^-T key nearest to ours, and the same for value and output."""
    query, key = fit_basis(ours.query, ours.key, theirs.query, theirs.key)
    value, output = fit_basis(ours.value, ours.output, theirs.value, theirs.output)
    return Attention(query, key, value, output)


def fit_basis(first: Tensor, second: Tensor, their_first: Tensor, their_second: Tensor) -> tuple[Tensor, Tensor]:
    """B their_first and B^-T their_second, (heads, size, dim), with the B of each head that brings both nearest to ours.

    It starts from the mean of what least squares give for each alone, and takes steps of Gauss and Newton, B <- (1 + X) B.
    """
    pinv = torch.linalg.pinv
    basis = (first @ pinv(their_first) + pinv(second @ pinv(their_second)).mT) / 2
    for _ in range(_STEPS):
        one, other = basis @ their_first, pinv(basis).mT @ their_second
        wanted = (first - one) @ one.mT - other @ (second - other).mT
        basis = basis + _solve_sylvester(other @ other.mT, one @ one.mT, wanted) @ basis
    return basis @ their_first, pinv(basis).mT @ their_second


def _solve_sylvester(left: Tensor, right: Tensor, wanted: Tensor) -> Tensor:
    """X with left X + X right = wanted, for symmetric matrices without negative eigenvalues."""
    (sizes, axes), (other_sizes, other_axes) = torch.linalg.eigh(left), torch.linalg.eigh(right)
    sums = sizes[..., :, None] + other_sizes[..., None, :]
    solved: Tensor = axes @ (axes.mT @ wanted @ other_axes / sums.clamp_min(1e-12)) @ other_axes.mT
    return solved
