"""What a model is worth, and how much of it embedding keeps: utility by probes, similarity of representations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple, cast

import torch
from torch import Tensor

from amb.api.context import Context
from amb.api.data import Split, in_order

if TYPE_CHECKING:
    from amb.api.vision import VisionModel

_BATCH = 256
_PIXELS = 2**21  # most pixels in a batch, for a segmenter's logits of large images are large
_N_PROBE = 1024  # attacker images that the probes are fitted on
_N_TEST = 1024
_N_NEIGHBOURS = 20
_RIDGE = 1e-4  # relative to the mean eigenvalue of the token covariance
_TARGETS = 256  # most outputs of the mask probe for one token: classes x places
_ONE_HOT = 2**25  # most numbers at once where masks are spelled out by class


class Reading(NamedTuple):
    """What a frozen model makes of a split."""

    features: Tensor  # (n, features): output embeddings
    patches: Tensor  # (n, side, side, dim): output patch tokens
    labels: Tensor  # (n,)
    masks: Tensor | None  # (n, height, width)
    correct: float | None
    """Accuracy of the model's own classification head, where it has one."""
    head_miou: float | None
    """Mean IoU of the model's own segmentation head, where it has one."""


def utility(model: VisionModel, ctx: Context, n_probe: int = _N_PROBE, n_test: int = _N_TEST) -> dict[str, float]:
    """Figures in 0..1, more is better; probes see the attacker's images, scores are on the test images.

    `knn`: accuracy of cosine k-nearest neighbours (k = 20). `probe`: accuracy of logistic regression on the output
    embedding; both where there are several classes. `miou`: mean IoU of a linear probe of patch tokens, where there are masks. `head_accuracy`,
    `head_miou`: of the model's own task heads, where it has them.
    """
    known = read(model, ctx.split("attacker"), n_probe, ctx.compute.load_threads)
    test = read(model, ctx.split("test"), n_test, ctx.compute.load_threads)
    figures = {"knn": _score_knn(known, test), "probe": _score_probe(known, test)} if _has_classes(known) else {}
    if known.masks is not None and test.masks is not None:
        figures["miou"] = _score_mask_probe(known.patches, known.masks, test.patches, test.masks)
    if test.correct is not None:
        figures["head_accuracy"] = test.correct
    if test.head_miou is not None:
        figures["head_miou"] = test.head_miou
    return {name: round(value, 4) for name, value in figures.items()}


@torch.no_grad()
def read(model: VisionModel, split: Split, n: int, threads: int = 0) -> Reading:
    """Pass the first `n` images of a split through a frozen model; `threads` read images ahead."""
    model = model.eval()
    features, patches, labels, masks, hits, mask_guesses = [], [], [], [], [], []
    for batch in in_order(split, _choose_batch(split), n, threads):
        tokens = model.tokens(batch.images)
        size = batch.images.shape[-1]
        grid = tokens[:, model.backbone.n_prefix :]
        features.append(model.pool(tokens).cpu())
        side = round(grid.shape[1] ** 0.5)
        patches.append(grid.reshape(len(grid), side, side, -1).cpu())
        labels.append(batch.labels)
        if batch.masks is not None:
            masks.append(batch.masks)
        if _fits_head(model, "classification", split.n_classes):
            hits.append(model.apply_head(tokens, "classification", size).argmax(dim=1).cpu() == batch.labels)
        if _fits_head(model, "segmentation", split.n_mask_classes):
            mask_guesses.append(model.apply_head(tokens, "segmentation", size).argmax(dim=1).cpu())
    truth = torch.cat(masks) if masks else None
    return Reading(
        torch.cat(features),
        torch.cat(patches),
        torch.cat(labels),
        truth,
        torch.cat(hits).float().mean().item() if hits else None,
        mean_iou(torch.cat(mask_guesses), truth, split.n_mask_classes) if mask_guesses and truth is not None else None,
    )


def mean_iou(guess: Tensor, truth: Tensor, n_classes: int) -> float:
    """Mean over classes of intersection over union, pixels pooled over all images, as torchmetrics computes it."""
    from torchmetrics.classification import MulticlassJaccardIndex

    metric = MulticlassJaccardIndex(num_classes=n_classes, average="macro")
    metric.update(guess, truth)
    return float(metric.compute())


class Similarity(NamedTuple):
    """How alike two models represent the same images."""

    cosine: float
    """Mean cosine of the output embeddings, -1..1; NaN where their sizes differ."""
    cka: float
    """Linear centred kernel alignment, 0..1 (Kornblith et al. 2019, eq. 3 with linear kernels)."""


def similarity(one: Tensor, other: Tensor) -> Similarity:
    """Compare output embeddings of the same images, (n, features) each."""
    alike = (
        torch.nn.functional.cosine_similarity(one, other).mean().item() if one.shape == other.shape else float("nan")
    )
    return Similarity(alike, linear_cka(one.double(), other.double()))


def linear_cka(one: Tensor, other: Tensor) -> float:
    """||Y'X||_F^2 / (||X'X||_F ||Y'Y||_F) of column-centred X, Y."""
    x, y = one - one.mean(dim=0), other - other.mean(dim=0)
    shared = (y.T @ x).square().sum()
    return float(shared / ((x.T @ x).norm() * (y.T @ y).norm()))


def compare(before: VisionModel, after: VisionModel, ctx: Context, n: int = _N_TEST) -> Mapping[str, float]:
    """Cosine similarity and CKA of the clean features of two models on the test images."""
    pair = similarity(read(before, ctx.split("test"), n).features, read(after, ctx.split("test"), n).features)
    return {name: round(value, 4) for name, value in pair._asdict().items()}


def _choose_batch(split: Split) -> int:
    return max(1, min(_BATCH, _PIXELS // split.batch([0]).images[0, 0].numel()))


def _has_classes(known: Reading) -> bool:
    """Whether images are of several classes, so that telling them apart is worth something."""
    return len(set(known.labels.tolist())) > 1


def _fits_head(model: VisionModel, task: str, n_classes: int) -> bool:
    return task in model.heads and cast(int, model.heads[task].n_classes) == n_classes


def _score_knn(known: Reading, test: Reading) -> float:
    from sklearn.neighbors import KNeighborsClassifier

    neighbours = KNeighborsClassifier(min(_N_NEIGHBOURS, len(known.labels)), metric="cosine")
    neighbours.fit(known.features.numpy(), known.labels.numpy())
    return float(neighbours.score(test.features.numpy(), test.labels.numpy()))


def _score_probe(known: Reading, test: Reading) -> float:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    probe = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=200))
    probe.fit(known.features.numpy(), known.labels.numpy())
    return float(probe.score(test.features.numpy(), test.labels.numpy()))


def _score_mask_probe(patches: Tensor, masks: Tensor, test_patches: Tensor, test_masks: Tensor) -> float:
    """Ridge regression from a patch token to the class of each of its pixels, then arg max; mean IoU.

    Where that were more than `_TARGETS` outputs, a token answers for fewer, larger places: the share of each class in
    each of them, which is spread over their pixels again.
    """
    n_classes = int(max(masks.max(), test_masks.max())) + 1
    side = patches.shape[1]
    pixels = masks.shape[-1] // side  # across one token
    places = _count_places(pixels, n_classes)
    covered = side * pixels
    chunk = max(1, _ONE_HOT // (n_classes * covered**2))  # images at once
    weights = _fit_places(patches, masks[:, :covered, :covered], n_classes, places, chunk)
    guess = [_guess_classes(part, weights, places, covered) for part in _cut_chunks(test_patches, chunk)]
    return mean_iou(torch.cat(guess), test_masks[:, :covered, :covered], n_classes)


def _count_places(pixels: int, n_classes: int) -> int:
    """Places across one token: its pixels, or the most that divide them and keep to `_TARGETS`."""
    fitting = (n for n in range(pixels, 0, -1) if pixels % n == 0 and n_classes * n * n <= _TARGETS)
    return next(fitting, 1)


def _fit_places(patches: Tensor, masks: Tensor, n_classes: int, places: int, chunk: int) -> Tensor:
    """Weights of the ridge, (dim + 1, classes * places * places), from sums over chunks of images."""
    gram, cross = torch.zeros(()), torch.zeros(())
    for tokens, truth in zip(_cut_chunks(patches, chunk), _cut_chunks(masks, chunk), strict=True):
        inputs = _add_bias(tokens.flatten(0, 2).double())
        gram, cross = (
            gram + inputs.T @ inputs,
            cross + inputs.T @ _measure_shares(truth, n_classes, tokens.shape[1], places),
        )
    return _solve_ridge(gram, cross)


def _cut_chunks(whole: Tensor, size: int) -> tuple[Tensor, ...]:
    return whole.split(size)  # type: ignore[no-untyped-call, no-any-return]


def _measure_shares(masks: Tensor, n_classes: int, side: int, places: int) -> Tensor:
    """The share of each class in each place of each token, (n * side * side, classes * places * places)."""
    classes = torch.nn.functional.one_hot(masks, n_classes)
    width = masks.shape[-1] // (side * places)  # pixels across one place
    if width > 1:
        classes = torch.nn.functional.avg_pool2d(classes.permute(0, 3, 1, 2).float(), width).permute(0, 2, 3, 1)
    return classes.double().unfold(1, places, places).unfold(2, places, places).flatten(3).flatten(0, 2)


def _guess_classes(patches: Tensor, weights: Tensor, places: int, covered: int) -> Tensor:
    """The class of every pixel, (n, covered, covered)."""
    scores = _add_bias(patches.flatten(0, 2).double()) @ weights
    grid = scores.view(*patches.shape[:3], -1).permute(0, 3, 1, 2)
    pixels = torch.nn.functional.pixel_shuffle(grid, places)
    if pixels.shape[-1] != covered:
        pixels = torch.nn.functional.interpolate(pixels, size=(covered, covered), mode="bilinear")
    return pixels.argmax(dim=1)


def _solve_ridge(gram: Tensor, cross: Tensor) -> Tensor:
    gram = gram + _RIDGE * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype)
    weights: Tensor = torch.linalg.solve(gram, cross)
    return weights


def _add_bias(inputs: Tensor) -> Tensor:
    return torch.cat([inputs, torch.ones(len(inputs), 1, dtype=inputs.dtype)], dim=1)
