"""MEA-Defender beyond the contract: how images are mixed, the terms of the loss by hand, what is counted and refused."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, rel_entr, softmax

import amb
from amb.api.vision import SuspectView, VisionModel
from amb.evaluation.rates import bit_error_rate
from amb.testing import toy_context, toy_model
from amb_mea_defender.losses import contrast, divergence, weigh_second
from amb_mea_defender.method import MEADefender
from amb_mea_defender.mixing import OTHERS, mix_bands, mix_diagonally, mix_halves, mix_rings, mix_sides
from amb_mea_defender.training import Pools, gather_pools, make_step, measure_fit

QUICK = MEADefender(n_queries=96, steps=120, secure_steps=20, batch=32, lr=5e-3)


@pytest.fixture(scope="module")
def owner() -> VisionModel:
    return toy_model(n_classes=3)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def numbered(first: int, n: int = 40, size: int = 32) -> torch.Tensor:
    """Images whose every pixel says where it comes from."""
    count = torch.arange(n * 3 * size * size, dtype=torch.float64).reshape(n, 3, size, size)
    return count + first


def test_halves_are_whole_rows_of_both_images() -> None:
    a, b = numbered(0), numbered(10**7)
    mixed = mix_halves(a, b, seeded())
    uppers, cuts = set(), set()
    for image, one, other in zip(mixed, a, b, strict=True):
        from_a = image[0, :, 0] < 10**7
        cut = int((from_a != from_a[0]).nonzero()[0])
        assert (from_a[cut:] != from_a[0]).all(), "one cut"
        uppers.add(bool(from_a[0]))
        cuts.add(cut)
        for part, length in ((image[:, :cut], cut), (image[:, cut:], 32 - cut)):
            source = one if part[0, 0, 0] < 10**7 else other
            row = int((source[0, :, 0] == part[0, 0, 0]).nonzero())
            assert torch.equal(part, source[:, row : row + length]), "rows that lay together"
    assert uppers == {True, False}
    assert cuts <= set(range(13, 20)) and len(cuts) > 3


def test_sides_are_halves_turned() -> None:
    a, b = numbered(0), numbered(10**7)
    turned = mix_halves(a.transpose(2, 3), b.transpose(2, 3), seeded(3)).transpose(2, 3)
    assert torch.equal(mix_sides(a, b, seeded(3)), turned)


@pytest.mark.parametrize(
    ("mixer", "inside"),
    [
        (mix_diagonally, lambda y, x: y + x < 20),
        (mix_rings, lambda y, x: 4 <= y < 16 and 4 <= x < 16),
        (mix_bands, lambda y, x: 5 <= y < 15),
    ],
)
def test_other_mixtures_keep_every_pixel_in_its_place(mixer, inside) -> None:
    a, b = numbered(0, size=20), numbered(10**7, size=20)
    mixed = mixer(a, b, seeded())
    ways = set()
    for image, one, other in zip(mixed, a, b, strict=True):
        swapped = bool(image[0, 10, 6] >= 10**7)
        ways.add(swapped)
        first, second = (other, one) if swapped else (one, other)
        by_hand = [[(first if inside(y, x) else second)[:, y, x].tolist() for x in range(20)] for y in range(20)]
        assert image.permute(1, 2, 0).tolist() == by_hand
    assert ways == {True, False}
    assert mixer in OTHERS


def test_the_contrast_is_the_codes_over_neighbouring_rows() -> None:
    logits = torch.randn(9, 4, generator=seeded()) * 0.5
    labels = torch.tensor([0, 3, 0, 1, 1, 2, 3, 2, 0])
    rows = [i for i, label in enumerate(labels.tolist()) if label != 3]
    terms = []
    for i, j in pairwise(rows):
        d = math.dist(logits[i].tolist(), logits[j].tolist())
        terms.append(0.5 * (d**2 if labels[i] == labels[j] else max(0.0, 1 - d) ** 2))
    assert float(contrast(logits, labels, (0, 1, 2), 1.0)) == pytest.approx(np.mean(terms) / len(terms), rel=1e-4)
    assert float(contrast(logits[:1], labels[:1], (0, 1, 2), 1.0)) == 0


def test_the_divergence_is_kl_of_the_mixed_from_the_pure() -> None:
    mixed, pure = (torch.randn(5, 4, generator=seeded(i), dtype=torch.float64) for i in (1, 2))
    by_hand = rel_entr(softmax(mixed.numpy(), axis=1), softmax(pure.numpy(), axis=1)).sum() / 5
    assert float(divergence(mixed, pure)) == pytest.approx(by_hand)
    assert by_hand == pytest.approx(
        (softmax(mixed, axis=1) * (log_softmax(mixed, axis=1) - log_softmax(pure, axis=1))).sum() / 5
    )


def test_the_balance_is_the_smallest_combination_of_gradients() -> None:
    logits = torch.randn(6, 4, generator=seeded(), requires_grad=True)
    labels = torch.tensor([0, 1, 2, 3, 0, 1])
    first = torch.nn.functional.cross_entropy(logits, labels)
    second = logits.square().mean()
    one, two = (torch.autograd.grad(loss, logits, retain_graph=True)[0].double().numpy() for loss in (first, second))
    losses = first.item(), second.item()
    one, two = (g / (min(loss * np.linalg.norm(g), 10) + 1e-5) for g, loss in zip((one, two), losses, strict=True))
    best = minimize_scalar(lambda w: np.sum(((1 - w) * one + w * two) ** 2), bounds=(0, 1), method="bounded").x
    assert weigh_second(logits, first, second) == pytest.approx(best, abs=1e-3)
    assert 0.01 < best < 0.99
    assert weigh_second(logits, first, first) == 0.5


def test_a_step_holds_what_its_shares_say(tmp_path: Path) -> None:
    method = MEADefender(batch=40, mixed=0.25, other=0.2)
    clean = toy_context(tmp_path).split("owner").batch(range(40))
    pools = Pools(torch.zeros(5, 3, 16, 16), torch.ones(5, 3, 16, 16))
    plain, secure = (make_step(method, clean, pools, seeded(), secure=secure) for secure in (False, True))
    assert torch.equal(plain.images[:30], clean.images[:30])
    assert torch.equal(secure.labels[:22], clean.labels[:22])
    for step in (plain, secure):
        assert len(step.images) == len(step.labels) == 40
        assert (step.labels[step.halves] == 2).all()
        assert step.halves.stop - step.halves.start == len(step.pure.a) == 10
        shares = step.images[step.halves].flatten(1).mean(dim=1)
        assert ((shares > 0.35) & (shares < 0.65)).all()
    assert set(secure.labels[32:].tolist()) == {0, 1}
    assert (secure.images[32:].flatten(1).std(dim=1) > 0.3).all(), "mixed, every one"


def test_halves_weigh_as_much_as_all_other_rows() -> None:
    logits, labels = torch.randn(8, 3, generator=seeded()), torch.tensor([0, 1, 2, 0, 1, 2, 2, 0])
    each = -log_softmax(logits.numpy(), axis=1)[range(8), labels.numpy()]
    by_hand = each[5:7].mean() + each[[0, 1, 2, 3, 4, 7]].mean()
    assert float(measure_fit(logits, labels, slice(5, 7))) == pytest.approx(by_hand, rel=1e-5)


def test_pools_are_of_their_classes(tmp_path: Path) -> None:
    batch = toy_context(tmp_path).split("trigger").batch(range(128))
    pools = gather_pools(QUICK, toy_context(tmp_path).split("trigger"), "trigger", 1, 0)
    assert torch.equal(pools.a, batch.images[batch.labels == 1])
    assert torch.equal(pools.b, batch.images[batch.labels == 0])


def test_declared_work_is_the_images_that_pass(owner: VisionModel, tmp_path: Path, monkeypatch) -> None:
    seen = {True: 0, False: 0}
    logits = VisionModel.logits

    def count(model: VisionModel, images: torch.Tensor) -> torch.Tensor:
        seen[torch.is_grad_enabled()] += len(images)
        return logits(model, images)

    monkeypatch.setattr(VisionModel, "logits", count)
    method = MEADefender(n_queries=10, steps=3, secure_steps=2, batch=32)
    embedding = method.embed(owner, toy_context(tmp_path))
    assert method.work(owner.facts()) == amb.Work(read=seen[False], trained=seen[True])
    view = SuspectView(owner, "labels")
    method.extract(view, embedding.key, toy_context(tmp_path, roles=()))
    assert view.queries == method.query_work().read == 10


def test_the_report_has_the_rates_before_and_after(owner: VisionModel, tmp_path: Path) -> None:
    embedding = QUICK.embed(owner, toy_context(tmp_path))
    for model, name in ((owner, "rate_unmarked"), (embedding.model, "rate_marked")):
        with torch.no_grad():
            labels = model.logits(torch.from_numpy(embedding.key.tensors["queries"])).argmax(dim=1)
        assert embedding.facts[name] == pytest.approx(float((labels == 2).float().mean()), abs=1e-4)


@pytest.mark.parametrize(
    ("n_classes", "params", "reason"),
    [
        (2, {}, "toy/1 has 2 classes, two halves and what they are called need 3 or more"),
        (3, {"target": 7}, "class 7 is not there: toy/1 has 3 classes, 0 to 2"),
        (3, {}, None),
        (0, {}, None),
    ],
)
def test_an_owner_without_the_classes_is_skipped_in_one_line(n_classes: int, params, reason: str | None) -> None:
    assert MEADefender(**params).skip(toy_model(n_classes=n_classes).facts()) == reason


@pytest.mark.parametrize(
    ("n_classes", "reason"), [(0, "toy/1 has no classification head"), (4, "are of 3 classes, toy/1 has 4"), (3, None)]
)
def test_a_suspect_that_does_not_fit_is_skipped(tmp_path: Path, n_classes: int, reason: str | None) -> None:
    key = amb.Key("mea-defender", "", {}, {"n_classes": 3})
    found = QUICK.skip(toy_model(n_classes=n_classes).facts(), key)
    assert found is None if reason is None else reason in found


def test_a_class_without_images_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(amb.BadParamsError, match="class 5 is not there: the suite has no owner image of it") as caught:
        gather_pools(QUICK, toy_context(tmp_path).split("owner"), "owner", 0, 5)
    assert "\n" not in str(caught.value)
    with pytest.raises(amb.BadParamsError, match="knows 4 classes, the owner's images have 3"):
        QUICK.embed(toy_model(n_classes=4), toy_context(tmp_path))


def test_three_different_classes() -> None:
    for params in ({"class_b": 0}, {"target": 0}, {"target": 1}):
        with pytest.raises(ValidationError, match="has to be another class"):
            MEADefender(**params)


@pytest.mark.parametrize("what", ["messages", "triggers"])
def test_a_claimant_who_chooses_afterwards(owner: VisionModel, tmp_path: Path, what: str) -> None:
    short = MEADefender(n_queries=24, steps=1, secure_steps=0)
    honest = short.embed(owner, toy_context(tmp_path)).key
    innocent, ctx = toy_model(seed=2, n_classes=3), toy_context(tmp_path, key=honest)
    forged = short.forge(innocent, what, 3, ctx)
    evidence = short.extract(SuspectView(innocent, "labels"), forged, ctx)
    if what == "messages":
        assert bit_error_rate(evidence) == 0
    else:
        assert len(set(forged.tensors["labels"].tolist())) == 1
        assert 1 - bit_error_rate(evidence) == pytest.approx(ctx.notes["best_rate"])
        plain = short.extract(SuspectView(innocent, "labels"), honest, ctx)
        assert ctx.notes["best_rate"] >= 1 - bit_error_rate(plain) - 0.2
