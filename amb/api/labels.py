"""Keys of inputs with their labels, as fingerprints of classifiers have them: who can answer, agreement, forgery."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from amb.api.forging import require_forgery
from amb.errors import BadParamsError

if TYPE_CHECKING:
    from amb.api.context import Context
    from amb.api.interfaces import Method
    from amb.api.records import Key
    from amb.api.types import ModelFacts
    from amb.api.vision import VisionModel


def explain_other_classes(facts: ModelFacts, key: Key) -> str | None:
    """Why a suspect cannot answer such a key, whose facts have `n_classes`; None where it has as many classes."""
    if facts.n_classes is None:
        return f"{facts.ref} has no classification head to ask for labels"
    if facts.n_classes != key.facts["n_classes"]:
        return f"the key's labels are of {key.facts['n_classes']} classes, {facts.ref} has {facts.n_classes}"
    return None


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
