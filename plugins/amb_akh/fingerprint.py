"""Making an AKH key and reading it: which images the owner's model gets wrong, and what a suspect makes of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import numpy as np
import torch
from torch import Tensor

import amb

if TYPE_CHECKING:
    from amb_akh.method import AKH


def embed(params: AKH, owner: amb.VisionModel, ctx: amb.Context) -> amb.Embedding:
    """The key: images drawn at random among those that fit, with the labels that the owner's model gives them."""
    split, n_classes = ctx.split(params.images), cast(int, owner.heads["classification"].n_classes)
    if split.n_classes != n_classes:
        raise amb.BadParamsError(
            f"method {params.name}: {owner.ref} knows {n_classes} classes, the images have {split.n_classes}, so there is "
            "no telling what it gets wrong. Give it a head for the suite's classes."
        )
    shuffled = torch.randperm(len(split), generator=ctx.generator("images"))
    looked_at = shuffled[: params.n_queries if params.queries == "random" else params.n_images]
    answers, wrong = _ask_owner(owner.copy().eval(), split, looked_at, params.batch, ctx)
    fits = torch.ones_like(wrong) if params.queries == "random" else wrong
    if not fits.any():
        raise amb.BadParamsError(
            f"method {params.name}: {owner.ref} gets all {len(looked_at)} {params.images} images right, so there is none to "
            "ask about. Take a larger n_images, images=trigger, or queries=random."
        )
    chosen = fits.nonzero()[:, 0][: params.n_queries]
    queries = split.batch(looked_at[chosen].tolist()).images
    tensors = {"queries": queries.numpy(), "labels": answers[chosen].numpy()}
    key = amb.Key(params.canonical(), owner.digest(), tensors, {"n_classes": n_classes})
    facts = {
        "queries_asked": params.n_queries,
        "queries_kept": len(chosen),
        "images_looked_at": len(looked_at),
        "owner_error": round(wrong.double().mean().item(), 4),
        "labels_in_key": len(torch.unique(answers[chosen])),
    }
    return amb.Embedding(owner, key, facts)


def extract(suspect: amb.SuspectView, key: amb.Key, batch: int) -> amb.Evidence:
    """The labels that the owner's model gives the queries beside those that the suspect gives them, (queries, 1)."""
    queries = torch.from_numpy(key.tensors["queries"])
    observed = torch.cat([suspect.labels(part).cpu() for part in torch.split(queries, batch)])
    expected = key.tensors["labels"].astype(np.int64)
    return amb.Evidence(expected[:, None], observed.numpy()[:, None], alphabet=key.facts["n_classes"])


@torch.no_grad()
def _ask_owner(
    model: amb.VisionModel, split: amb.Split, rows: Tensor, batch: int, ctx: amb.Context
) -> tuple[Tensor, Tensor]:
    """The model's labels for rows of a split, (rows,) int64, and which of them are wrong, (rows,) bool."""
    parts = torch.split(rows, batch)
    answers, wrong = [], []
    for _, images in ctx.progress.track(ctx.load(split, parts), "look for wrong answers", len(parts)):
        labels = model.logits(images.images).argmax(dim=1).cpu()
        answers.append(labels)
        wrong.append(labels != images.labels)
    return torch.cat(answers), torch.cat(wrong)
