"""IPGuard beyond the contract: where points lie, that the batch changes nothing, what is counted and refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from amb.api.vision import SuspectView, VisionModel
from amb.errors import BadParamsError
from amb.testing import MethodContract, toy_context, toy_model
from amb_ipguard.fingerprint import draw_starts, passes
from amb_ipguard.method import IPGuard
from amb_ipguard.search import Starts, objective, search

QUICK = {"n_points": 12, "k": 0.2}


class TestContract(MethodContract):
    """The combination that no preset has."""

    @pytest.fixture
    def method(self):
        return IPGuard(n_points=16, start="noise", target="least-likely")


@pytest.fixture
def owner() -> VisionModel:
    return toy_model(n_classes=3)


def embed(owner: VisionModel, folder: Path, **params):
    return IPGuard(**{**QUICK, **params}).embed(owner, toy_context(folder))


def starts_of(owner: VisionModel, folder: Path, **params) -> Starts:
    return draw_starts(IPGuard(**{**QUICK, **params}), owner, toy_context(folder))


def naive_objective(logits: list[float], own: int, target: int, k: float) -> float:
    third = max(value for index, value in enumerate(logits) if index not in (own, target))
    return max(0.0, logits[own] - logits[target] + k) + max(0.0, third - logits[own])


def search_one(owner: VisionModel, start, own: int, target: int, params: IPGuard):
    """The paper's procedure on one point, with torch's own Adam: the image, the steps taken, whether it got there."""
    x = start[None].clone().requires_grad_()
    adam = torch.optim.Adam([x], lr=params.lr)
    for step in range(params.max_iterations + 1):
        logits = owner.logits(x)[0]
        if naive_objective(logits.tolist(), own, target, params.k) == 0:
            return x.detach()[0], step, True
        if step < params.max_iterations:
            third = max(logits[index] for index in range(len(logits)) if index not in (own, target))
            loss = torch.relu(logits[own] - logits[target] + params.k) + torch.relu(third - logits[own])
            (x.grad,) = torch.autograd.grad(loss, x)
            adam.step()
            x.data.clamp_(0, 1)
    return x.detach()[0], params.max_iterations, False


def one_by_one(owner: VisionModel, starts: Starts, params: IPGuard):
    rows = zip(starts.images, starts.own.tolist(), starts.target.tolist(), strict=True)
    return [search_one(owner, start, own, target, params) for start, own, target in rows]


def test_the_objective_is_the_papers() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(200, 5, generator=generator)
    own = torch.randint(5, (200,), generator=generator)
    target = (own + torch.randint(1, 5, (200,), generator=generator)) % 5
    by_hand = [naive_objective(*row, 1.5) for row in zip(logits.tolist(), own.tolist(), target.tolist(), strict=True)]
    assert 0 in by_hand
    torch.testing.assert_close(objective(logits, own, target, 1.5), torch.tensor(by_hand))


@pytest.mark.parametrize("target", ["random", "least-likely"])
@pytest.mark.parametrize("start", ["image", "noise"])
def test_every_point_lies_over_the_boundary_by_k(owner: VisionModel, tmp_path: Path, start: str, target: str) -> None:
    params = {"start": start, "target": target}
    starts = starts_of(owner, tmp_path, **params)
    tensors = embed(owner, tmp_path, **params).key.tensors
    assert tensors["points"].dtype == np.float32
    assert tensors["points"].min() >= 0
    assert tensors["points"].max() <= 1
    assert len(tensors["points"]) == QUICK["n_points"]
    for point, label, own in zip(tensors["points"], tensors["labels"], starts.own.tolist(), strict=True):
        with torch.no_grad():
            logits = owner.logits(torch.from_numpy(point)[None])[0].tolist()
        order = sorted(range(3), key=lambda index: -logits[index])
        assert order[:2] == [label, own]
        assert logits[label] - logits[own] >= QUICK["k"] - 1e-4


@pytest.mark.parametrize("batch", [1, 5, 128])
def test_the_batch_changes_no_point(owner: VisionModel, tmp_path: Path, batch: int) -> None:
    params = IPGuard(**QUICK)
    starts = starts_of(owner, tmp_path)
    found = sorted(search(owner.logits, starts, params.k, params.lr, params.max_iterations, batch))
    alone = one_by_one(owner, starts, params)
    assert [each.steps for each in found] == [steps for _, steps, _ in alone]
    for each, (image, _, _) in zip(found, alone, strict=True):
        torch.testing.assert_close(each.image, image, rtol=0, atol=1e-4)


def test_points_that_fail_are_kept_out_and_counted(owner: VisionModel, tmp_path: Path) -> None:
    starts = starts_of(owner, tmp_path)
    by_hand = one_by_one(owner, starts, IPGuard(**QUICK, max_iterations=8))
    there = torch.tensor([reached for _, _, reached in by_hand])
    n = int(there.sum())
    assert 0 < n < len(there), "the case needs points of both kinds"
    embedding = embed(owner, tmp_path, max_iterations=8)
    facts, tensors = embedding.facts, embedding.key.tensors
    assert (facts["points_asked"], facts["points_kept"], facts["points_failed"]) == (12, n, 12 - n)
    assert facts["success_rate"] == pytest.approx(n / 12, abs=1e-4)
    points = torch.stack([image for image, _, reached in by_hand if reached])
    torch.testing.assert_close(torch.from_numpy(tensors["points"]), points, rtol=0, atol=1e-4)
    assert tensors["labels"].tolist() == starts.target[there].tolist()


def test_a_key_without_points_is_an_error_that_says_what_to_do(owner: VisionModel, tmp_path: Path) -> None:
    with pytest.raises(BadParamsError, match="none of 12 points .* Take a smaller k or a larger max_iterations"):
        embed(owner, tmp_path, k=50.0, max_iterations=1)


@pytest.mark.parametrize(
    ("pixel", "logits", "right"),
    [
        (0.5, [1.0, 3.0, 0.0], True),
        (0.5, [1.0, 2.9, 0.0], False),  # margin below k
        (0.5, [1.0, 3.0, 2.0], False),  # another class is the runner-up
        (0.5, [1.0, 3.0, 4.0], False),  # another class wins
        (1.1, [1.0, 3.0, 0.0], False),
        (-0.1, [1.0, 3.0, 0.0], False),
        (float("nan"), [1.0, float("nan"), 0.0], False),
    ],
)
def test_the_check_refuses_what_lies_elsewhere(pixel: float, logits: list[float], right: bool) -> None:
    points = torch.full((1, 3, 2, 2), 0.5)
    points[0, 1, 0, 1] = pixel
    starts = Starts(points, torch.tensor([0]), torch.tensor([1]))
    assert passes(points, torch.tensor([logits]), starts, 2.0).tolist() == [right]


def test_a_random_target_is_any_class_but_the_starts_own(owner: VisionModel, tmp_path: Path) -> None:
    starts = starts_of(owner, tmp_path, n_points=128)
    with torch.no_grad():
        assert starts.own.tolist() == owner.logits(starts.images).argmax(dim=1).tolist()
    assert (starts.own != starts.target).all()
    shifts = ((starts.target - starts.own) % 3).tolist()
    assert 40 < shifts.count(1) < 88
    assert set(shifts) == {1, 2}


def test_the_least_likely_target_has_the_smallest_logit(owner: VisionModel, tmp_path: Path) -> None:
    starts = starts_of(owner, tmp_path, n_points=32, target="least-likely")
    with torch.no_grad():
        logits = owner.logits(starts.images)
    assert (logits.gather(1, starts.target[:, None])[:, 0] == logits.min(dim=1).values).all()


def test_images_start_from_distinct_triggers_and_noise_from_none(owner: VisionModel, tmp_path: Path) -> None:
    triggers = {image.numpy().tobytes() for image in toy_context(tmp_path).split("trigger").batch(range(128)).images}
    images = starts_of(owner, tmp_path, n_points=128).images
    assert {image.numpy().tobytes() for image in images} == triggers
    noise = starts_of(owner, tmp_path, n_points=128, start="noise").images
    assert noise.shape == images.shape
    assert abs(noise.mean().item() - 0.5) < 0.01
    assert noise.std().item() == pytest.approx(1 / 12**0.5, abs=0.01)


def test_the_owner_comes_back_as_it_was(owner: VisionModel, tmp_path: Path) -> None:
    owner.train()
    owner.backbone.norm.requires_grad_(False)
    digest, flags = owner.digest(), [weight.requires_grad for weight in owner.parameters()]
    assert embed(owner, tmp_path).model is owner
    assert owner.digest() == digest
    assert [weight.requires_grad for weight in owner.parameters()] == flags
    assert all(weight.grad is None for weight in owner.parameters())
    assert all(module.training for module in owner.modules())


def test_dropout_is_off_while_points_are_made(owner: VisionModel, tmp_path: Path) -> None:
    digest = embed(owner, tmp_path).key.digest
    assert embed(owner.train(), tmp_path).key.digest == digest


def test_images_through_the_model_are_counted(
    owner: VisionModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward, backward = [], []
    logits, grad = VisionModel.logits, torch.autograd.grad
    monkeypatch.setattr(
        VisionModel, "logits", lambda model, images: forward.append(len(images)) or logits(model, images)
    )
    monkeypatch.setattr(torch.autograd, "grad", lambda loss, points: backward.append(len(points)) or grad(loss, points))
    facts = embed(owner, tmp_path, max_iterations=8, batch=5).facts
    assert facts["forward_images"] == sum(forward)
    assert facts["backward_images"] == sum(backward)
    assert facts["forwards_per_point"] == pytest.approx(sum(forward) / 12, abs=0.05)
    assert facts["iterations_max"] == 8


def test_a_finished_point_makes_room_for_the_next(owner: VisionModel, tmp_path: Path) -> None:
    sizes: list[int] = []
    starts = starts_of(owner, tmp_path)

    def logits(images):
        sizes.append(len(images))
        return owner.logits(images)

    assert len(list(search(logits, starts, 0.2, 0.01, 1000, 5))) == 12
    full = sizes.count(5)
    assert sizes[:full] == [5] * full
    assert sizes[full:] == sorted(sizes[full:], reverse=True), "rows leave, and none are left to come"
    assert full > len(sizes) / 2


def test_margins_in_the_report_are_those_of_the_key(owner: VisionModel, tmp_path: Path) -> None:
    embedding, starts = embed(owner, tmp_path), starts_of(owner, tmp_path)
    with torch.no_grad():
        logits = owner.logits(torch.from_numpy(embedding.key.tensors["points"])).numpy()
    rows = range(len(logits))
    margins = sorted(logits[rows, starts.target.numpy()] - logits[rows, starts.own.numpy()])
    assert embedding.facts["margin_min"] == pytest.approx(margins[0], abs=2e-4)
    assert margins[4] - 2e-4 < embedding.facts["margin_median"] < margins[7] + 2e-4
    assert embedding.facts["labels_in_key"] == len(set(embedding.key.tensors["labels"].tolist()))


def test_evidence_is_the_sources_labels_beside_the_suspects(owner: VisionModel, tmp_path: Path) -> None:
    key, suspect = embed(owner, tmp_path).key, toy_model(seed=2, n_classes=3)
    view = SuspectView(suspect, "labels")
    evidence = IPGuard(batch=5).extract(view, key, toy_context(tmp_path, roles=()))
    with torch.no_grad():
        labels = suspect.logits(torch.from_numpy(key.tensors["points"])).argmax(dim=1)
    assert evidence.observed.tolist() == labels[:, None].tolist()
    assert evidence.expected.tolist() == key.tensors["labels"][:, None].tolist()
    assert evidence.alphabet == 3
    assert view.queries == 12


def test_more_points_than_triggers_is_an_error_unless_they_start_from_noise(owner: VisionModel, tmp_path: Path) -> None:
    with pytest.raises(BadParamsError, match="n_points is 129, but the suite has 128 trigger images"):
        starts_of(owner, tmp_path, n_points=129)
    assert len(starts_of(owner, tmp_path, n_points=129, start="noise").images) == 129


@pytest.mark.parametrize(
    ("n_classes", "as_owner", "as_suspect"),
    [
        (0, None, "toy/1 has no classification head to ask for labels"),
        (2, "toy/1 has 2 classes", "the key's labels are of 3 classes, toy/1 has 2"),
        (3, None, None),
        (4, None, "the key's labels are of 3 classes, toy/1 has 4"),
    ],
)
def test_what_does_not_apply_is_skipped_with_a_reason(
    owner: VisionModel, tmp_path: Path, n_classes: int, as_owner: str | None, as_suspect: str | None
) -> None:
    facts = toy_model(n_classes=n_classes).facts()
    key = embed(owner, tmp_path, n_points=1).key
    for expected, reason in ((as_owner, IPGuard().skip(facts)), (as_suspect, IPGuard().skip(facts, key))):
        assert reason is None if expected is None else expected in reason


def test_a_trial_is_one_label() -> None:
    assert IPGuard().default_tau == 0
    assert IPGuard.protects == "classifier"
