"""The work of `deepsigns`: centres of classes trained to a message, read through the projection, forged and unlearned."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import amb
from amb_deepsigns.secret import Carriers, open_carriers, require_sound

if TYPE_CHECKING:
    from amb_deepsigns.method import DeepSigns

_READ: Final = 256
"""Images that are read at once."""


def embed(params: DeepSigns, owner: amb.VisionModel, ctx: amb.Context) -> amb.Embedding:
    """The marked model; the key is the secret and the images on which it is read."""
    split = ctx.split("owner")
    if split.n_classes < params.n_classes:
        raise amb.BadParamsError(
            f"method {params.name}: class {split.n_classes} is not there: n_classes is {params.n_classes}, and the owner's "
            f"images are of {split.n_classes} classes. Take fewer."
        )
    images, classes = draw_key_images(params, ctx)
    before = measure_centres(_read(owner.copy().eval(), images), classes, params.n_classes)
    tensors = {"secret": amb.open_secret(ctx), "images": images.numpy(), "classes": classes.numpy()}
    facts = {"model": owner.full_digest(), "n_features": before.shape[1]}
    key = amb.Key(params.canonical(), owner.digest(), tensors, facts)
    marked = owner.copy(f"{owner.ref}+{params.name}")
    losses = _train(params, marked, before, open_carriers(params, key), split, ctx)
    after = measure_centres(_read(marked, images), classes, params.n_classes)
    moved = (after - before).norm(dim=1) / before.norm(dim=1)
    return amb.Embedding(marked, key, {**losses, "centres_moved": round(moved.mean().item(), 4)})


def draw_key_images(params: DeepSigns, ctx: amb.Context) -> tuple[Tensor, Tensor]:
    """`n_images` random triggers of each marked class, (n, 3, height, width) uint8, and their classes, (n,), in order.

    Raises BadParamsError where a class has too few.
    """
    split, n = ctx.split("trigger"), params.n_images
    found: dict[int, list[Tensor]] = {each: [] for each in range(params.n_classes)}
    order = torch.randperm(len(split), generator=ctx.generator("key images"))
    for rows in torch.split(order, _READ):
        batch = split.batch(rows.tolist())
        for image, label in zip(batch.images, batch.labels.tolist(), strict=True):
            if label in found and len(found[label]) < n:
                found[label].append(image)
        if all(len(images) == n for images in found.values()):
            break
    for label, images in found.items():
        if len(images) < n:
            raise amb.BadParamsError(
                f"method {params.name}: class {label} has {len(images)} of {n} key images among the suite's triggers. "
                "Take a smaller n_images or n_classes."
            )
    drawn = torch.stack([image for images in found.values() for image in images])
    return drawn.mul(255).round().to(torch.uint8), torch.arange(params.n_classes).repeat_interleave(n)


def measure_centres(features: Tensor, classes: Tensor, n_classes: int) -> Tensor:
    """The mean embedding of each class, (classes, features), of embeddings (n, features)."""
    member = F.one_hot(classes, n_classes).T.to(features)  # (classes, n)
    return member @ features / member.sum(dim=1, keepdim=True)


def _train(
    params: DeepSigns, marked: amb.VisionModel, start: Tensor, carriers: Carriers, split: amb.Split, ctx: amb.Context
) -> dict[str, float]:
    """Train encoder, head and centres; the terms of the last step's loss. What served the training alone is taken off again."""
    head = _choose_head(marked, split, ctx)
    centres = nn.Parameter(start.clone().to(ctx.device))
    projection, messages = _place(carriers, ctx.device)
    groups: list[dict[str, Any]] = [
        {"params": [*marked.backbone.parameters(), *head.parameters()]},
        {"params": [centres], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups)
    rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, [params.lr, params.centre_lr], total_steps=params.steps)
    accumulator = amb.GradientAccumulator(ctx, optimizer, rate)
    batches = amb.endless(len(split), params.batch, ctx.generator("batches"))
    rows_of_steps = (next(batches) for _ in range(params.steps))
    terms = torch.zeros(3)
    marked.train()
    with ctx.seeded("dropout"):
        for rows, batch in ctx.progress.track(ctx.load(split, rows_of_steps), "deepsigns", params.steps):
            labels = batch.labels.to(ctx.device)

            def loss_of(part: slice, images: Tensor = batch.images, labels: Tensor = labels) -> Tensor:
                nonlocal terms
                tokens = marked.tokens(images[part])
                logits = head(tokens, marked.backbone.n_prefix, images.shape[-1])
                spread = measure_spread(marked.pool(tokens), labels[part], centres)
                bits = measure_bits(centres, projection, messages)
                parts = torch.stack([F.cross_entropy(logits, labels[part]), spread, bits])
                terms = parts.detach()
                return parts @ parts.new_tensor([1.0, params.gamma1, params.gamma2])

            accumulator.step(loss_of, len(rows))
    marked.eval()
    return {
        name: round(term, 4) for name, term in zip(("cross_entropy", "spread", "bits"), terms.tolist(), strict=True)
    }


def measure_spread(features: Tensor, labels: Tensor, centres: Tensor) -> Tensor:
    """Mean over images of |f(x) - mu_y|^2; images of classes without a centre count as 0."""
    marked = labels < len(centres)
    return (features[marked] - centres[labels[marked]]).square().sum() / len(labels)


def measure_bits(centres: Tensor, projection: Tensor, messages: Tensor) -> Tensor:
    """Mean over classes of the cross-entropy of their messages, summed over bits."""
    return F.binary_cross_entropy_with_logits(centres @ projection, messages, reduction="sum") / len(centres)


def _choose_head(model: amb.VisionModel, split: amb.Split, ctx: amb.Context) -> nn.Module:
    """The model's own head, where it is of the owner's classes; else a new one, which is no part of the model."""
    own = model.heads["classification"] if "classification" in model.heads else None  # noqa: SIM401 (no .get)
    if own is not None and cast(int, own.n_classes) == split.n_classes:
        return own
    return amb.new_head(model, split, "classification", ctx).to(ctx.device)


def extract(params: DeepSigns, suspect: amb.SuspectView, key: amb.Key) -> amb.Evidence:
    """The signs of the projected mean embeddings, (classes, bits). Raises UsageError for a key that was tampered with."""
    require_sound(params, key)
    images = torch.from_numpy(key.tensors["images"])
    features = torch.cat([suspect.features(part.float() / 255).float().cpu() for part in torch.split(images, _READ)])
    return _read_bits(params, features, key)


def _read_bits(params: DeepSigns, features: Tensor, key: amb.Key) -> amb.Evidence:
    """Evidence of embeddings of the key's images, (n, features); a bit without a sign counts as wrong."""
    carriers = open_carriers(params, key)
    centres = measure_centres(features, torch.from_numpy(key.tensors["classes"]), params.n_classes)
    found = centres.double().numpy() @ carriers.projection.astype(np.float64)
    observed = np.where(np.abs(found) > 0, found > 0, carriers.messages == 0).astype(np.int64)
    rate = float((observed != carriers.messages).mean())
    facts = {"paper_bit_error_rate": rate, "paper_rule": rate == 0}
    return amb.Evidence(carriers.messages, observed, facts=facts)


def agreement(params: DeepSigns, model: amb.VisionModel, key: amb.Key, n: int, drawn: torch.Generator) -> Tensor:
    """Mean log-likelihood of the bits, each floored at a coin's, of the classes among `n` key images."""
    rows = torch.randperm(len(key.tensors["classes"]), generator=drawn)[:n]
    classes = torch.from_numpy(key.tensors["classes"])[rows]
    features = model.features(torch.from_numpy(key.tensors["images"])[rows].float() / 255)
    present, places = torch.unique(classes, return_inverse=True)
    centres = measure_centres(features, places.to(features.device), len(present))
    projection, messages = _place(open_carriers(params, key), features.device)
    wanted = messages[present.to(messages.device)]
    likelihood = -F.binary_cross_entropy_with_logits(centres @ projection, wanted, reduction="none")
    return likelihood.clamp(min=-math.log(2)).mean()


def forge(params: DeepSigns, model: amb.VisionModel, budget: int, ctx: amb.Context) -> amb.Key:
    """Of `budget` secrets the one whose key reads best on a model, which is asked once. Notes its p beside 1 / budget."""
    key = amb.require_key(params, ctx)
    features = _read(model.copy().eval(), torch.from_numpy(key.tensors["images"]))

    def count_right(keys: Sequence[amb.Key]) -> list[int]:
        read = (_read_bits(params, features, tried) for tried in keys)
        return [int((each.observed == each.expected).sum()) for each in read]

    return amb.grind(params, key, budget, ctx, params.n_classes * params.n_bits, count_right)


def audit_key(params: DeepSigns, key: amb.Key, unmarked: amb.VisionModel | None) -> amb.KeyAudit:
    """What of a key follows from its secret, and whether it is bound to the unmarked model."""
    try:
        require_sound(params, key)
    except amb.UsageError as error:
        return amb.KeyAudit(wrong=(str(error),))
    recomputed = ("projection and messages, from the secret, the images and the digest of the unmarked model",)
    looked = "that the images are of their classes: somebody has to look"
    if unmarked is None:
        return amb.KeyAudit(recomputed, ("the digest of the unmarked model: that takes the model", looked))
    foreign = key.facts["model"] != unmarked.full_digest()
    wrong = ("the unmarked model is not the one to which its messages are bound",) if foreign else ()
    return amb.KeyAudit(recomputed, (looked,), wrong)


@torch.no_grad()
def _read(model: amb.VisionModel, images: Tensor) -> Tensor:
    """A model's embeddings of 8-bit images, (n, features)."""
    return torch.cat([model.features(part.float() / 255).float().cpu() for part in torch.split(images, _READ)])


def _place(carriers: Carriers, device: torch.device | str) -> tuple[Tensor, Tensor]:
    """The projection and the messages as float tensors."""
    return torch.from_numpy(carriers.projection).to(device), torch.from_numpy(carriers.messages).float().to(device)
