"""The training behind `distill`: ask the model once, then one visible loop over its answers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import amb
from amb.data import in_order, shuffled
from amb.heads import HEADS
from amb.tuning import Schedule, tune

if TYPE_CHECKING:
    from amb_attacks.distill import Distill, Target

ACCESS: Final[dict[Target, amb.Access]] = {
    "soft": "logits",
    "hard": "labels",
    "feature-mse": "features",
    "feature-cosine": "features",
}
"""What the thief has to see of the model for each target."""
_ASK = 256  # images per question to the model


def distill(params: Distill, model: amb.VisionModel, ctx: amb.Context) -> amb.VisionModel:
    """A student with weights of its own that answers the attacker's images as the model does."""
    split = ctx.split("attacker")
    _check_classes(params, model, split)
    n_images = min(params.n_images, len(split))
    answers = ask(amb.SuspectView(model, ACCESS[params.target]), split, n_images)  # they stay the same: ask once
    student = new_student(params, model, ctx)
    projection = _projection(params, student, answers, ctx)
    batch_size = min(params.batch, n_images)
    n_steps = params.epochs * (n_images // batch_size)
    weights = [*student.parameters(), *projection.parameters()]
    optimizer = torch.optim.AdamW(weights, lr=params.lr, weight_decay=params.weight_decay)
    schedule = Schedule("cosine")
    rate = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: schedule.factor(step, n_steps))
    batches = _whole_batches(params.epochs, n_images, batch_size, ctx.generator("student batches"))
    student.train()
    with ctx.seeded("student dropout"):
        for rows in ctx.progress.track(batches, params.canonical(), n_steps):
            batch = split.batch(rows.tolist())
            answer = answers[rows].to(ctx.device)
            if params.by_class:
                loss = class_loss(params, student.logits(batch.images), answer, batch.labels.to(ctx.device))
            else:
                loss = feature_loss(params, projection(student.features(batch.images)), answer)
            loss.backward()
            optimizer.step()
            rate.step()
            optimizer.zero_grad()
    if params.by_class or "classification" not in model.heads:
        return student.eval()
    head = Schedule("cosine", batch=params.batch, n_images=params.n_images, layers="head")
    return tune(student, split, "classification", head, ctx, student.ref)


def ask(view: amb.SuspectView, split: amb.Split, n_images: int) -> Tensor:
    """The model's answers to the first images: logits (n, classes), labels (n,) or embeddings (n, features)."""
    verbs = {"logits": view.logits, "labels": view.labels, "features": view.features}
    answer = verbs[view.access]
    return torch.cat([answer(batch.images).cpu() for batch in in_order(split, _ASK, n_images)])


def class_loss(params: Distill, logits: Tensor, answer: Tensor, labels: Tensor) -> Tensor:
    """The weighted sum of Hinton et al. 2015: alpha x imitation + (1 - alpha) x cross-entropy with the true labels."""
    if params.target == "soft":  # T^2 KL(model || student): T^2 keeps the gradients' size at any T (section 2)
        log_student, log_model = ((z / params.temperature).log_softmax(dim=1) for z in (logits, answer))
        divergence = F.kl_div(log_student, log_model, reduction="batchmean", log_target=True)
        imitation = params.temperature**2 * divergence
    else:
        imitation = F.cross_entropy(logits, answer)
    if params.alpha == 1:  # the attacker's labels need not be of the model's classes
        return imitation
    return params.alpha * imitation + (1 - params.alpha) * F.cross_entropy(logits, labels)


def feature_loss(params: Distill, features: Tensor, answer: Tensor) -> Tensor:
    """Mean squared error, or one less the mean cosine similarity, of embeddings (n, features)."""
    if params.target == "feature-mse":
        return F.mse_loss(features, answer)
    return 1 - F.cosine_similarity(features, answer).mean()


def new_student(params: Distill, model: amb.VisionModel, ctx: amb.Context) -> amb.VisionModel:
    """An untrained student, with a classification head where the model's classes are imitated."""
    with ctx.seeded("student"):
        bare = _build(params.student, model)
        n_classes = _n_classes(model) if params.by_class else 0
        heads = {"classification": HEADS["classification"](bare.backbone.dim, n_classes)} if n_classes else {}
    ref = f"{model.ref}+{params.canonical()}"
    return amb.VisionModel(ref, bare.architecture, bare.backbone, heads).to(ctx.device).eval()


def _build(student: str, model: amb.VisionModel) -> amb.VisionModel:
    if student == "same":
        return amb.build_model(model.architecture)
    size = model.backbone.image_size
    architecture = {"loader": "timm", "name": student}
    try:
        return amb.build_model({**architecture, "options": {"img_size": size}})
    except amb.CheckpointError:  # only networks that are built for one size have this option
        return amb.build_model({**architecture, "options": {}, "image_size": size})


def _projection(params: Distill, student: amb.VisionModel, answers: Tensor, ctx: amb.Context) -> nn.Module:
    """From the student's embedding to the width of the model's; nothing where there is no need."""
    if params.by_class:
        return nn.Identity()
    width = student.facts().n_features
    with ctx.seeded("projection"):
        layer = nn.Identity() if width == answers.shape[1] else nn.Linear(width, answers.shape[1])
    return layer.to(ctx.device)


def _whole_batches(epochs: int, n: int, batch_size: int, order: torch.Generator) -> Iterator[Tensor]:
    """Random batches of equal size: a batch norm cannot be trained on a last batch of one image."""
    for _ in range(epochs):
        yield from (rows for rows in shuffled(n, batch_size, order) if len(rows) == batch_size)


def _check_classes(params: Distill, model: amb.VisionModel, split: amb.Split) -> None:
    """The attacker's labels have to be of the model's classes, unless they are not used."""
    if params.by_class and params.alpha < 1 and _n_classes(model) != split.n_classes:
        raise amb.BadParamsError(
            f"attack {params}: {model.ref} knows {_n_classes(model)} classes, the attacker's images have "
            f"{split.n_classes}. Set alpha=1 to learn from the model's answers alone."
        )


def _n_classes(model: amb.VisionModel) -> int:
    return cast(int, model.heads["classification"].n_classes)
