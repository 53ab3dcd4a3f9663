"""The training behind `distill`: the thief's images, the model's answers to them, and one visible loop over both."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Final, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import amb
from amb import HEADS, GradientAccumulator, TrainingConfig, in_order, shuffled, tune

if TYPE_CHECKING:
    from amb_attacks.distill import Distill, Target

ACCESS: Final[dict[Target, amb.Access]] = {
    "soft": "logits",
    "hard": "labels",
    "feature-mse": "features",
    "feature-cosine": "features",
    "token-mse": "weights",  # who serves embeddings does not serve tokens
    "token-cosine": "weights",
    "contrastive": "features",
}
"""What the thief has to see of the model for each target."""
Answers = Callable[[Tensor, Tensor], Tensor]
"""From rows of the thief's images, and these images as they are shown, to the model's answers."""
_ASK = 256  # images per question to the model
_GRID = 4  # surrogates are cut into 4 x 4 pieces


def distill(params: Distill, model: amb.VisionModel, ctx: amb.Context) -> amb.VisionModel:
    """A student with weights of its own that answers the attacker's images as the model does."""
    split: amb.Split = ctx.split("attacker")
    _check_classes(params, model, split)
    n_images = min(params.n_images, len(split))
    if params.images == "surrogate":
        split = Surrogates(split, n_images, ctx.generator("surrogate images"))
    student = new_student(params, model, ctx)
    view = amb.SuspectView(model, ACCESS[params.target])
    projection = imitate(params, student, view, split, n_images, ctx)
    if params.keep_projection:
        student = _serve_projected(student, projection)
    ctx.note(queries=view.queries)
    if params.by_class or params.images == "surrogate" or "classification" not in model.heads:
        return student.eval()
    head = TrainingConfig("cosine", batch=params.batch, n_images=params.n_images, layers="head")
    return tune(student, split, "classification", head, ctx, student.ref)


def imitate(
    params: Distill, student: amb.VisionModel, view: amb.SuspectView, split: amb.Split, n_images: int, ctx: amb.Context
) -> nn.Module:
    """Train the student, in place, on what the view tells of the model; what was trained between their embeddings."""
    answers = _prepare_answers(params, view, split, n_images)
    projection = _make_projection(params, student, answers, split, ctx)
    batch_size = min(params.batch, n_images)
    n_steps = params.epochs * (n_images // batch_size)
    weights = [*student.parameters(), *projection.parameters()]
    optimizer = torch.optim.AdamW(weights, lr=params.lr, weight_decay=params.weight_decay)
    schedule = TrainingConfig("cosine")
    rate = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: schedule.factor(step, n_steps))
    batches = _draw_whole_batches(params.epochs, n_images, batch_size, ctx.generator("student batches"))
    accumulator = GradientAccumulator(ctx, optimizer, rate)
    drawn = ctx.generator("augmentation")
    student.train()
    with ctx.seeded("student dropout"):
        for rows, batch in ctx.progress.track(ctx.load(split, batches), params.canonical(), n_steps):
            theirs, ours = _make_views(params, batch.images.to(ctx.device), drawn)
            answer, labels = answers(rows, theirs).to(ctx.device), batch.labels.to(ctx.device)
            loss_of = partial(_measure_loss, params, student, projection, ours, answer, labels)
            if params.target == "contrastive":  # between all pairs of the batch
                accumulator.step_whole(loss_of)
            else:
                accumulator.step(loss_of, len(rows))
    return projection


def _serve_projected(student: amb.VisionModel, projection: nn.Module) -> amb.VisionModel:
    """The student with the projection behind its embedding; as it is where there was no need of one."""
    from amb_attacks.distill import ProjectEmbedding

    if not isinstance(projection, nn.Linear):
        return student
    served = amb.edited(
        student, ProjectEmbedding(n_in=projection.in_features, n_out=projection.out_features), student.ref
    )
    cast(nn.Linear, served.projection).load_state_dict(projection.state_dict())
    return served


@torch.no_grad()
def ask(view: amb.SuspectView, images: Tensor) -> Tensor:
    """The model's answers: labels (n,), logits (n, classes), embeddings (n, features), or tokens as `outputs` has them."""
    if view.access == "weights":
        view.count_queries(len(images))
        return outputs(view.model, images)
    verbs = {"logits": view.logits, "labels": view.labels, "features": view.features}
    return verbs[view.access](images)


def outputs(model: amb.VisionModel, images: Tensor) -> Tensor:
    """Output tokens without registers: CLS, or the mean of the patches where there is none, then the patches."""
    tokens, n_prefix = model.tokens(images), model.backbone.n_prefix
    patches = tokens[:, n_prefix:]
    summary = tokens[:, :1] if n_prefix else patches.mean(dim=1, keepdim=True)
    return torch.cat([summary, patches], dim=1)


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
    """Mean squared error, or one less the mean cosine similarity, of embeddings or tokens (..., features)."""
    if params.target.endswith("mse"):
        return F.mse_loss(features, answer)
    return 1 - F.cosine_similarity(features, answer, dim=-1).mean()


def token_loss(params: Distill, tokens: Tensor, answer: Tensor, has_cls: bool) -> Tensor:
    """The same of `outputs` of both, of one width, over the patches of the model's grid and the student's CLS."""
    patches = resampled(tokens[:, 1:], answer.shape[1] - 1)
    if not has_cls:  # the mean of its patches would be trained twice, and towards another token
        return feature_loss(params, patches, answer[:, 1:])
    return feature_loss(params, torch.cat([tokens[:, :1], patches], dim=1), answer)


def resampled(patches: Tensor, n: int) -> Tensor:
    """Patch tokens of a square grid, bilinearly interpolated to a square grid of `n`."""
    if patches.shape[1] == n:
        return patches
    side, new_side = round(patches.shape[1] ** 0.5), round(n**0.5)
    grid = torch.unflatten(patches.transpose(1, 2), 2, (side, side))
    grid = F.interpolate(grid, size=(new_side, new_side), mode="bilinear", align_corners=False, antialias=True)
    return grid.flatten(2).transpose(1, 2)


def contrastive_loss(features: Tensor, answer: Tensor, temperature: float) -> Tensor:
    """Cont-Steal's InfoNCE of the student's embeddings, (n, features) as the model's.

    -log of exp(sim(student i, model i) / T) over the sum of exp(sim(student i, model k) / T), all k, and of
    exp(sim(student i, student k) / T), k != i. As in the authors' code, the sum has the positive pair in it.
    """
    student, model = F.normalize(features, dim=1), F.normalize(answer, dim=1)
    own = (student @ student.T).masked_fill(
        torch.eye(len(student), dtype=torch.bool, device=student.device), -torch.inf
    )
    similarities = torch.cat([student @ model.T, own], dim=1) / temperature
    return F.cross_entropy(similarities, torch.arange(len(student), device=student.device))


def augmented(images: Tensor, drawn: torch.Generator) -> Tensor:
    """Each image anew: a crop of 60 to 100 % of its side at its old size, and contrast and brightness by channel.

    No flip: in digits and letters it is another sign.
    """
    n, n_channels = images.shape[:2]
    side = 1 - 0.4 * torch.rand(n, 1, generator=drawn)
    centre = (2 * torch.rand(n, 2, generator=drawn) - 1) * (1 - side)  # of the crop, in [-1, 1]
    to_crop = torch.cat([torch.diag_embed(side.expand(n, 2)), centre[:, :, None]], dim=2)
    grid = F.affine_grid(to_crop, list(images.shape), align_corners=False).to(images.device)
    crops = F.grid_sample(images, grid, padding_mode="border", align_corners=False)
    contrast, brightness = torch.rand(2, n, n_channels, 1, 1, generator=drawn).to(images.device).unbind()
    return ((crops - 0.5) * (0.6 + 0.8 * contrast) + 0.3 + 0.4 * brightness).clamp(0, 1)


class Surrogates:
    """Images of no domain, one for each of the first `n` images of a split; a fixed recipe, and no labels.

    Two images are mixed, the mixture's 4 x 4 pieces shuffled and its channels permuted; every other one is inverted.
    """

    n_classes = 0
    n_mask_classes = 0

    def __init__(self, split: amb.Split, n: int, drawn: torch.Generator) -> None:
        self.split = split
        order = torch.randperm(n, generator=drawn)
        self.partners = torch.empty_like(order).scatter_(0, order, order.roll(1))  # of one cycle: none is its own
        self.shares = 0.3 + 0.4 * torch.rand(n, generator=drawn)
        self.pieces = torch.rand(n, _GRID**2, generator=drawn).argsort(dim=1)
        self.channels = torch.rand(n, 3, generator=drawn).argsort(dim=1)
        self.inverted = torch.rand(n, generator=drawn) < 0.5

    def __len__(self) -> int:
        return len(self.partners)

    def batch(self, indices: Sequence[int]) -> amb.Batch:
        """The surrogates at `indices`; their labels are -1, which no loss takes."""
        rows = torch.as_tensor(list(indices))
        one, other = (self.split.batch(each.tolist()).images for each in (rows, self.partners[rows]))
        mixed = torch.lerp(other, one, self.shares[rows].view(-1, 1, 1, 1))
        shuffled = _shuffle_pieces(mixed, self.pieces[rows])
        coloured = shuffled[torch.arange(len(rows))[:, None], self.channels[rows]]
        images = torch.where(self.inverted[rows].view(-1, 1, 1, 1), 1 - coloured, coloured)
        return amb.Batch(images, torch.full_like(rows, -1))


def _shuffle_pieces(images: Tensor, order: Tensor) -> Tensor:
    """Images cut into pieces, put together in another order; what is left over of a side is cut off."""
    side = images.shape[-1] // _GRID
    cut = images[..., : _GRID * side, : _GRID * side].unfold(2, side, side).unfold(3, side, side)
    pieces = cut.flatten(2, 3).transpose(1, 2)  # (n, pieces, channels, side, side)
    pieces = pieces[torch.arange(len(images))[:, None], order]
    rows = torch.unflatten(pieces, 1, (_GRID, _GRID)).permute(0, 3, 1, 4, 2, 5)  # (n, channels, row, y, column, x)
    return rows.flatten(4, 5).flatten(2, 3)


def new_student(params: Distill, model: amb.VisionModel, ctx: amb.Context) -> amb.VisionModel:
    """An untrained student, with a classification head where the model's classes are imitated."""
    with ctx.seeded("student"):
        return ctx.place(_make_untrained(params, model, _count_classes(model) if params.by_class else 0))


def form_of(params: Distill, model: amb.VisionModel) -> amb.VisionModel:
    """An untrained model with the sizes and the head that the finished student has."""
    labelled = "classification" in model.heads and params.images == "own"
    with torch.random.fork_rng(devices=[]):
        form = _make_untrained(params, model, _count_classes(model) if params.by_class or labelled else 0)
        if not params.keep_projection or params.by_class:
            return form
        ours, theirs = (form.backbone.dim, model.backbone.dim) if params.by_token else _count_features(form, model)
        return form if ours == theirs else _serve_projected(form, nn.Linear(ours, theirs))


def _count_features(*models: amb.VisionModel) -> tuple[int, ...]:
    return tuple(model.facts().n_features for model in models)


def _make_untrained(params: Distill, model: amb.VisionModel, n_classes: int) -> amb.VisionModel:
    bare = _build_network(params.student, model)
    heads = {"classification": HEADS["classification"](bare.backbone.dim, n_classes)} if n_classes else {}
    bare.ref, bare.heads = f"{model.ref}+{params.canonical()}", nn.ModuleDict(heads)
    return bare.eval()


def _build_network(student: str, model: amb.VisionModel) -> amb.VisionModel:
    if student == "same":  # as published: what was done to the stolen copy since is no part of the student
        return amb.build_model({key: value for key, value in model.architecture.items() if key != "edits"})
    size = model.backbone.image_size
    architecture = {"loader": "timm", "name": student}
    try:
        return amb.build_model({**architecture, "options": {"img_size": size}})
    except amb.CheckpointError:  # only networks that are built for one size have this option
        return amb.build_model({**architecture, "options": {}, "image_size": size})


def _prepare_answers(params: Distill, view: amb.SuspectView, split: amb.Split, n_images: int) -> Answers:
    if params.augment or params.by_token:  # no image is shown twice, or its answer is too large to keep
        return lambda _, images: ask(view, images)
    kept = torch.cat([ask(view, batch.images).cpu() for batch in in_order(split, _ASK, n_images)])
    return lambda rows, _: kept[rows]


def _make_views(params: Distill, images: Tensor, drawn: torch.Generator) -> tuple[Tensor, Tensor]:
    """What is shown to the model and what to the student."""
    if not params.augment:
        return images, images
    theirs = augmented(images, drawn)
    return theirs, augmented(images, drawn) if params.target == "contrastive" else theirs


def _measure_loss(
    params: Distill,
    student: amb.VisionModel,
    projection: nn.Module,
    images: Tensor,
    answer: Tensor,
    labels: Tensor,
    part: slice = slice(None),
) -> Tensor:
    """The mean loss over a part of a batch, which is all of it unless said otherwise."""
    images, answer, labels = images[part], answer[part], labels[part]
    if params.by_class:
        return class_loss(params, student.logits(images), answer, labels)
    if params.by_token:
        return token_loss(params, projection(outputs(student, images)), answer, student.backbone.n_prefix > 0)
    features = projection(student.features(images))
    if params.target == "contrastive":
        return contrastive_loss(features, answer, params.contrast_temperature)
    return feature_loss(params, features, answer)


def _make_projection(
    params: Distill, student: amb.VisionModel, answers: Answers, split: amb.Split, ctx: amb.Context
) -> nn.Module:
    """From the student's width to that of the model's answers; nothing where there is no need."""
    if params.by_class:
        return nn.Identity()
    theirs = answers(torch.tensor([0]), split.batch([0]).images).shape[-1]
    ours = student.backbone.dim if params.by_token else student.facts().n_features
    with ctx.seeded("projection"):
        layer = nn.Identity() if ours == theirs else nn.Linear(ours, theirs)
    return layer.to(ctx.device)


def _draw_whole_batches(epochs: int, n: int, batch_size: int, order: torch.Generator) -> Iterator[Tensor]:
    """Random batches of equal size: a batch norm cannot be trained on a last batch of one image."""
    for _ in range(epochs):
        yield from (rows for rows in shuffled(n, batch_size, order) if len(rows) == batch_size)


def _check_classes(params: Distill, model: amb.VisionModel, split: amb.Split) -> None:
    """The attacker's labels have to be of the model's classes, unless they are not used."""
    if params.by_class and params.alpha < 1 and _count_classes(model) != split.n_classes:
        raise amb.BadParamsError(
            f"attack {params}: {model.ref} knows {_count_classes(model)} classes, the attacker's images have "
            f"{split.n_classes}. Set alpha=1 to learn from the model's answers alone."
        )


def _count_classes(model: amb.VisionModel) -> int:
    return cast(int, model.heads["classification"].n_classes)
