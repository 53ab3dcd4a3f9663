"""The arithmetic behind `merge`: which model is the other one, and how two tensors become one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import torch
from torch import Tensor

import amb
from amb import TrainingConfig, tune

if TYPE_CHECKING:
    from amb_attacks.merge import Merge

_PARALLEL: Final = 0.9995  # |cosine| above which the arc is straight within float precision, as in mergekit


def merge(params: Merge, model: amb.VisionModel, ctx: amb.Context) -> amb.VisionModel:
    """A copy of the model whose encoder is merged with the other one's."""
    merged = model.copy(f"{model.ref}+{params.canonical()}")
    theirs = fit_state(params, merged, _load_other(params, ctx))
    base = fit_state(params, merged, load_base(params, ctx)) if params.how == "task-arithmetic" else theirs
    weights = dict(merged.backbone.named_parameters())
    if all(torch.equal(weight, theirs[name]) for name, weight in weights.items()):
        ctx.note(merged_with="the same weights")  # a fingerprint leaves the public model as it was
    for name, weight in weights.items():
        weight.data.copy_(combine(params, weight.data, theirs[name], base[name]))
    for name, statistic in merged.backbone.named_buffers():
        if name in theirs and statistic.is_floating_point():
            statistic.copy_(_mix_linearly(statistic, theirs[name], params.weight))
    return merged


def combine(params: Merge, mine: Tensor, theirs: Tensor, base: Tensor) -> Tensor:
    """One tensor of the merged model. `base` counts for task arithmetic alone."""
    if params.how == "task-arithmetic":
        return mine + params.weight * (theirs - base)
    return (slerp if params.how == "slerp" else _mix_linearly)(mine, theirs, params.weight)


def slerp(mine: Tensor, theirs: Tensor, weight: float) -> Tensor:
    """Spherical interpolation (Shoemake 1985, section 3.3) of two tensors taken as vectors."""
    one, other = mine.double().flatten(), theirs.double().flatten()
    cosine = torch.dot(one, other) / (one.norm() * other.norm())
    if not cosine.abs() < _PARALLEL:  # also where one of them is 0 and has no direction
        return _mix_linearly(mine, theirs, weight)
    angle = torch.arccos(cosine)
    shares = torch.sin((1 - weight) * angle), torch.sin(weight * angle)
    return ((shares[0] * one + shares[1] * other) / torch.sin(angle)).view_as(mine).to(mine.dtype)


def _mix_linearly(mine: Tensor, theirs: Tensor, weight: float) -> Tensor:
    return (1 - weight) * mine + weight * theirs


def _load_other(params: Merge, ctx: amb.Context) -> amb.VisionModel:
    if params.other == "base":
        return load_base(params, ctx)
    if params.other != "finetuned-base":
        return amb.load_model(params.other)
    schedule = TrainingConfig("cosine", lr=params.lr, epochs=params.epochs, n_images=params.n_images)
    return tune(load_base(params, ctx), ctx.split("attacker"), "classification", schedule, ctx)


def load_base(params: amb.Attack, ctx: amb.Context) -> amb.VisionModel:
    """The public model, on the device. Raises MissingError."""
    if ctx.base is None:
        raise amb.MissingError(f"attack {params} needs the public model from before the mark, which is not known here.")
    return ctx.base().to(ctx.device)


def fit_state(params: amb.Attack, model: amb.VisionModel, other: amb.VisionModel) -> dict[str, Tensor]:
    """The other encoder's tensors on the model's device. Raises BadParamsError where they do not fit."""
    mine, theirs = model.backbone.state_dict(), other.backbone.state_dict()
    for name in sorted({*mine, *theirs}):
        shapes = [tuple(state[name].shape) if name in state else None for state in (mine, theirs)]
        if shapes[0] != shapes[1]:
            raise amb.BadParamsError(
                f"attack {params}: {other.ref} cannot be merged with {model.ref}, "
                f"which has another architecture: {name} is {shapes[1]} against {shapes[0]}."
            )
    return {name: tensor.to(model.device) for name, tensor in theirs.items()}
