"""Making an IPGuard key and reading it: where points start, which of them pass the check, what a suspect answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

import amb
from amb_ipguard.search import Found, Starts, gaps, search

if TYPE_CHECKING:
    from amb_ipguard.method import IPGuard

_TOLERANCE = 1e-4  # of logits: the same image in another batch may differ by rounding


def embed(params: IPGuard, owner: amb.VisionModel, ctx: amb.Context) -> amb.Embedding:
    """Search from every start, check each point anew, and keep those that lie where they should as the key."""
    model = owner.copy().eval().requires_grad_(False)
    starts = draw_starts(params, model, ctx)
    moving = search(model.logits, starts, params.k, params.lr, params.max_iterations, params.batch, ctx.limiter)
    found = sorted(ctx.progress.track(moving, "find points", params.n_points), key=lambda each: each.place)
    points = torch.stack([each.image for each in found])
    answers = _ask_logits(model, points, params.batch)
    kept = passes(points, answers, starts, params.k)
    if not kept.any():
        raise amb.BadParamsError(
            f"method {params.name}: none of {params.n_points} points came to lie {params.k:g} beyond the boundary in "
            f"{params.max_iterations} steps. Take a smaller k or a larger max_iterations."
        )
    tensors = {"points": points[kept].cpu().numpy(), "labels": starts.target[kept].cpu().numpy()}
    key = amb.Key(params.canonical(), owner.digest(), tensors, {"n_classes": answers.shape[1]})
    margins = gaps(answers, starts.own, starts.target).margin[kept]
    return amb.Embedding(owner, key, _describe_search(found, margins, starts.target[kept]))


def extract(suspect: amb.SuspectView, key: amb.Key, batch: int) -> amb.Evidence:
    """The labels that the owner's model gives the points beside those that the suspect gives them, (points, 1)."""
    points = torch.from_numpy(key.tensors["points"])
    observed = torch.cat([suspect.labels(part) for part in torch.split(points, batch)])
    expected = key.tensors["labels"].astype(np.int64)
    return amb.Evidence(expected[:, None], observed.cpu().numpy()[:, None], alphabet=key.facts["n_classes"])


def draw_starts(params: IPGuard, model: amb.VisionModel, ctx: amb.Context) -> Starts:
    """Images to start from, their labels i and the targets j."""
    images = _draw_images(params, ctx).to(ctx.device)
    logits = _ask_logits(model, images, params.batch)
    return Starts(images, logits.argmax(dim=1), _draw_targets(params, logits, ctx))


def passes(points: Tensor, logits: Tensor, starts: Starts, k: float) -> Tensor:
    """Whether each point lies inside [0, 1] and in class j by a margin of k, with i as the runner-up; (n,) bool."""
    margin, lead = gaps(logits, starts.own, starts.target)
    inside = ((points >= 0) & (points <= 1)).flatten(1).all(dim=1)
    placed = (logits.argmax(dim=1) == starts.target) & (margin >= k - _TOLERANCE) & (lead >= -_TOLERANCE)
    return inside & placed


def _draw_images(params: IPGuard, ctx: amb.Context) -> Tensor:
    split = ctx.split("trigger")
    if params.start == "noise":
        shape = split.batch([0]).images.shape[1:]
        return torch.rand((params.n_points, *shape), generator=ctx.generator("noise"))
    if params.n_points > len(split):
        raise amb.BadParamsError(
            f"method {params.name}: n_points is {params.n_points}, but the suite has {len(split)} trigger images. "
            "Take fewer, or start=noise."
        )
    chosen = torch.randperm(len(split), generator=ctx.generator("start images"))[: params.n_points]
    return split.batch(chosen.tolist()).images


def _draw_targets(params: IPGuard, logits: Tensor, ctx: amb.Context) -> Tensor:
    """The class j of each start: the one with the smallest logit, or any other than i with equal chances."""
    if params.target == "least-likely":
        return logits.argmin(dim=1)
    n, n_classes = logits.shape
    shift = torch.randint(1, n_classes, (n,), generator=ctx.generator("targets"))
    return (logits.argmax(dim=1) + shift.to(logits.device)) % n_classes


@torch.no_grad()
def _ask_logits(model: amb.VisionModel, images: Tensor, batch: int) -> Tensor:
    return torch.cat([model.logits(part) for part in torch.split(images, batch)])


def _describe_search(found: list[Found], margins: Tensor, labels: Tensor) -> dict[str, Any]:
    """How the search went. Images are counted through every pass, the first labelling and the last check among them."""
    steps = [each.steps for each in found]
    forwards = sum(steps) + 3 * len(found)  # a forward ahead of each step and one after the last; labelling; check
    return {
        "points_asked": len(found),
        "points_kept": len(margins),
        "points_failed": len(found) - len(margins),
        "success_rate": round(len(margins) / len(found), 4),
        "labels_in_key": len(torch.unique(labels)),
        "iterations_mean": round(sum(steps) / len(found), 1),
        "iterations_max": max(steps),
        "forwards_per_point": round(forwards / len(found), 1),
        "forward_images": forwards,
        "backward_images": sum(each.backwards for each in found),
        "margin_min": round(margins.min().item(), 4),
        "margin_median": round(margins.median().item(), 4),
    }
