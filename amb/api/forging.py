"""Forging keys, as far as methods have it in common: which forgeries there are, and keys of inputs with their labels."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING, Final

import torch
from torch import Tensor
from torch.nn import functional as F

from amb.errors import BadParamsError, near_names

if TYPE_CHECKING:
    from amb.api.context import Context
    from amb.api.interfaces import Method
    from amb.api.records import Key
    from amb.api.vision import VisionModel

_DRAWN: Final = 32
"""Secrets that are tried together."""


def require_forgery(method: Method, what: str) -> None:
    """Raise BadParamsError where a method does not say how this of its key could be forged."""
    if what not in method.forgeries:
        offered = ", ".join(method.forgeries) or "nothing"
        hint = near_names(what, method.forgeries)
        raise BadParamsError(f"method {method.name} does not forge '{what}'.{hint} It forges {offered}.")


def forge_labels(
    method: Method, model: VisionModel, what: str, budget: int, ctx: Context, *, inputs: str, limit: str, batch: int
) -> Key:
    """The forged key of a fingerprint whose key is inputs (the tensor `inputs`) and the `labels` a model gives them.

    `messages` keeps the honest key's inputs and asks `model` for their labels, `batch` at once; `triggers` searches for
    inputs on `model`, the method's parameter `limit` set to the budget. Raises BadParamsError.
    """
    require_forgery(method, what)
    if what == "messages":
        return _relabel(method, ctx.key, model, inputs, batch)
    hurried = method.model_copy(update={limit: budget})
    return replace(hurried.embed(model, ctx).key, method=method.canonical())


def label_agreement(model: VisionModel, key: Key, inputs: str, n: int, drawn: torch.Generator) -> Tensor:
    """Mean log-likelihood of the labels of `n` inputs of such a key, drawn with `drawn`; `Method.agreement` for it.

    Each counts no less than a guess, so that none makes up for others.
    """
    images, labels = _inputs_and_labels(key, inputs)
    rows = torch.randperm(len(labels), generator=drawn)[:n]
    likelihood = -F.cross_entropy(model.logits(images[rows]), labels[rows].to(model.device), reduction="none")
    return likelihood.clamp(min=-math.log(key.facts["n_classes"])).mean()


@torch.no_grad()
def _relabel(method: Method, key: Key | None, model: VisionModel, inputs: str, batch: int) -> Key:
    if key is None:
        raise BadParamsError(f"method {method.name}: forging labels starts from the owner's key, and there is none.")
    images, _ = _inputs_and_labels(key, inputs)
    asked = model.copy().eval()
    labels = torch.cat([asked.logits(part).argmax(dim=1).cpu() for part in torch.split(images, batch)])
    old = key.tensors["labels"]
    return replace(key, tensors={inputs: key.tensors[inputs], "labels": labels.view(old.shape).numpy()})


def _inputs_and_labels(key: Key, inputs: str) -> tuple[Tensor, Tensor]:
    """All inputs, (n, 3, height, width), and their labels, (n,), whatever trials they make up in the key."""
    labels = torch.from_numpy(key.tensors["labels"])
    return torch.from_numpy(key.tensors[inputs]).flatten(0, labels.ndim - 1), labels.flatten()


# Keys whose parts follow from their secret: all that is left is to draw again, one lottery ticket a try


def require_key(method: Method, ctx: Context) -> Key:
    """The honest key, whose public parts the claimant keeps. Raises BadParamsError."""
    if ctx.key is None:
        raise BadParamsError(f"method {method.name}: forging a secret starts from the owner's key; there is none.")
    return ctx.key


def grind(
    method: Method,
    key: Key,
    budget: int,
    ctx: Context,
    n_bits: int,
    count_right: Callable[[Sequence[Key]], Sequence[int]],
) -> Key:
    """Of `budget` keys that differ in their secrets, the one of whose bits most are right. Notes its p beside 1 / budget."""
    from scipy.stats import binom

    best, most = key, -1
    tries = iter(ctx.progress.track(_draw_keys(method, key, budget, ctx), "forge secret", budget))
    while keys := list(islice(tries, _DRAWN)):
        for tried, right in zip(keys, count_right(keys), strict=True):
            if right > most:
                best, most = tried, right
    ctx.note(best_p=float(binom.sf(most - 1, n_bits, 0.5)), one_in_budget=1 / budget)
    return best


def _draw_keys(method: Method, key: Key, budget: int, ctx: Context) -> Iterator[Key]:
    drawn = ctx.generator("forged secrets")
    return (method.redraw(key, drawn) for _ in range(budget))
