"""Embedding, reading and forging the watermark: mixed images of A and B, one loop, labels."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations, islice
from typing import TYPE_CHECKING, Final, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

import amb
from amb_mea_defender.losses import contrast, divergence, weigh_second
from amb_mea_defender.mixing import OTHERS, mix_halves

if TYPE_CHECKING:
    from amb_mea_defender.method import MEADefender

_READ: Final = 256
"""Images that are read at once."""
_POOL: Final = 512
"""Images of A, and of B, that watermark images are mixed of."""


class Pools(NamedTuple):
    """Images of the two classes."""

    a: Tensor  # (n, 3, height, width)
    b: Tensor

    def draw(self, n: int, drawn: torch.Generator) -> Pools:
        """`n` random images of each."""
        return Pools(*(pool[torch.randint(len(pool), (n,), generator=drawn)] for pool in self))


class Step(NamedTuple):
    """What a step is trained on: clean rows first, then halves, then other mixtures."""

    images: Tensor  # (batch, 3, height, width)
    labels: Tensor  # (batch,)
    halves: slice
    """Where the watermark images are."""
    pure: Pools
    """As many images of A and of B, beside which the halves' answers are held."""


def embed(params: MEADefender, owner: amb.VisionModel, ctx: amb.Context) -> amb.Embedding:
    """The marked model; the key is watermark images that were not trained on, and what they are called."""
    n_classes = cast(int, owner.heads["classification"].n_classes)
    split = ctx.split("owner")
    if split.n_classes != n_classes:
        raise amb.BadParamsError(
            f"method {params.name}: {owner.ref} knows {n_classes} classes, the owner's images have {split.n_classes}. "
            "Give it a head for the suite's classes."
        )
    pools = gather_pools(params, split, "owner", params.class_a, params.class_b)
    triggers = gather_pools(params, ctx.split("trigger"), "trigger", params.class_a, params.class_b)
    queries = make_queries(params, triggers, ctx.generator("queries"))
    labels = np.full(len(queries), params.target, dtype=np.int64)
    key = amb.Key(
        params.canonical(), owner.digest(), {"queries": queries.numpy(), "labels": labels}, {"n_classes": n_classes}
    )
    before = _measure_rate(owner.copy().eval(), key)
    marked = owner.copy(f"{owner.ref}+{params.name}")
    facts = _train(params, marked, pools, split, ctx)
    rates = {"rate_unmarked": round(before, 4), "rate_marked": round(_measure_rate(marked, key), 4)}
    return amb.Embedding(marked, key, {**facts, **rates})


def gather_pools(params: MEADefender, split: amb.Split, role: str, a: int, b: int) -> Pools:
    """The first images of classes `a` and `b` of a split. Raises BadParamsError where one is not there."""
    found: dict[int, list[Tensor]] = {a: [], b: []}
    for batch in amb.in_order(split, _READ):
        for label, images in found.items():
            images.append(batch.images[batch.labels == label][: _POOL - sum(map(len, images))])
        if all(sum(map(len, images)) == _POOL for images in found.values()):
            break
    for label, images in found.items():
        if not any(map(len, images)):
            raise amb.BadParamsError(
                f"method {params.name}: class {label} is not there: the suite has no {role} image of it. Take another."
            )
    return Pools(*(torch.cat(images) for images in found.values()))


def make_queries(params: MEADefender, pools: Pools, drawn: torch.Generator) -> Tensor:
    """Watermark images of random pairs, in steps of 1/255, (n_queries, 3, height, width)."""
    pairs = pools.draw(params.n_queries, drawn)
    return mix_halves(*pairs, drawn).mul(255).round() / 255


def _train(
    params: MEADefender, marked: amb.VisionModel, pools: Pools, split: amb.Split, ctx: amb.Context
) -> dict[str, float]:
    """Both phases in one loop; the terms of the last step's loss."""
    n_steps, drawn = params.steps + params.secure_steps, ctx.generator("mixtures")
    optimizer = torch.optim.Adam(marked.parameters(), lr=params.lr)
    rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, params.lr, total_steps=n_steps)
    accumulator = amb.GradientAccumulator(ctx, optimizer, rate)
    batches = islice(amb.endless(len(split), params.batch, ctx.generator("batches")), n_steps)
    classes = (params.class_a, params.class_b, params.target)
    terms: dict[str, float] = {}
    marked.train()
    with ctx.seeded("dropout"):
        for at, (_, clean) in enumerate(ctx.progress.track(ctx.load(split, batches), "mea-defender", n_steps)):
            step = make_step(params, clean, pools, drawn, secure=at >= params.steps)
            labels = step.labels.to(ctx.device)

            def loss_of(step: Step = step, labels: Tensor = labels) -> Tensor:
                logits = marked.logits(step.images)
                with torch.no_grad():
                    pure = marked.logits(torch.cat(step.pure)).chunk(2)
                fit = measure_fit(logits, labels, step.halves)
                near = torch.stack([divergence(logits[step.halves], each) for each in pure]).sum()
                held = contrast(logits, labels, classes, params.margin) + near
                weight = weigh_second(logits, fit, held)
                terms.update(cross_entropy=fit.item(), divergence=near.item(), balance=weight)
                return fit + weight * held + params.kl * near

            accumulator.step_whole(loss_of)
    marked.eval()
    return {name: round(term, 4) for name, term in terms.items()}


def measure_fit(logits: Tensor, labels: Tensor, halves: slice) -> Tensor:
    """Mean cross-entropy of the halves, plus that of all other rows."""
    others = torch.ones_like(labels, dtype=torch.bool)
    others[halves] = False
    return F.cross_entropy(logits[halves], labels[halves]) + F.cross_entropy(logits[others], labels[others])


def make_step(params: MEADefender, clean: amb.Batch, pools: Pools, drawn: torch.Generator, *, secure: bool) -> Step:
    """The images of a step: clean ones, halves called C and, in the second phase, other mixtures called A or B."""
    n_halves, n_other = params.n_mixed, params.n_other if secure else 0
    n_clean = params.batch - n_halves - n_other
    pairs = pools.draw(n_halves, drawn)
    images, labels = [clean.images[:n_clean]], [clean.labels[:n_clean]]
    halves = slice(len(labels[0]), len(labels[0]) + n_halves)
    images.append(mix_halves(*pairs, drawn))
    labels.append(torch.full((n_halves,), params.target))
    for mixer in torch.randint(len(OTHERS), (n_other,), generator=drawn).tolist():
        images.append(OTHERS[mixer](*pools.draw(1, drawn), drawn))
        labels.append(torch.tensor([params.class_a, params.class_b])[torch.randint(2, (1,), generator=drawn)])
    return Step(torch.cat(images), torch.cat(labels), halves, pools.draw(n_halves, drawn))


def extract(suspect: amb.SuspectView, key: amb.Key) -> amb.Evidence:
    """What the watermark images are to be called beside what the suspect calls them, (queries, 1)."""
    queries = torch.from_numpy(key.tensors["queries"])
    observed = torch.cat([suspect.labels(part).cpu() for part in torch.split(queries, _READ)])
    expected = key.tensors["labels"].astype(np.int64)
    return amb.Evidence(expected[:, None], observed.numpy()[:, None], alphabet=key.facts["n_classes"])


def forge_pair(params: MEADefender, model: amb.VisionModel, budget: int, ctx: amb.Context) -> amb.Key:
    """Of `budget` pairs of classes the one whose halves a model calls one third class most often, and that class."""
    if ctx.key is None:
        raise amb.BadParamsError(f"method {params.name}: forging triggers starts from the owner's key; there is none.")
    asked, split, drawn = amb.SuspectView(model.copy(), "labels"), ctx.split("trigger"), ctx.generator("pairs")
    pairs = torch.tensor([*combinations(range(ctx.key.facts["n_classes"]), 2)])
    best, most = ctx.key, -1
    for a, b in pairs[torch.randperm(len(pairs), generator=drawn)[:budget]].tolist():
        try:
            queries = make_queries(params, gather_pools(params, split, "trigger", a, b), drawn)
        except amb.BadParamsError:  # no such class among the claimant's images
            continue
        counts = torch.bincount(asked.labels(queries).cpu(), minlength=ctx.key.facts["n_classes"])
        counts[[a, b]] = 0
        if (n := int(counts.max())) > most:
            labels = np.full(len(queries), int(counts.argmax()), dtype=np.int64)
            best, most = replace(ctx.key, tensors={"queries": queries.numpy(), "labels": labels}), n
    ctx.note(best_rate=most / params.n_queries)
    return best


def _measure_rate(model: amb.VisionModel, key: amb.Key) -> float:
    """Share of the key's images that a model calls C."""
    evidence = extract(amb.SuspectView(model, "labels"), key)
    return float((evidence.observed == evidence.expected).mean())
