"""AKH beyond the contract: which images are asked about, what is counted, what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import amb
from amb.api.vision import SuspectView, VisionModel
from amb.errors import BadParamsError
from amb.evaluation.rates import bit_error_rate
from amb.testing import MethodContract, toy_context, toy_model
from amb_akh.method import AKH


class TestContract(MethodContract):
    @pytest.fixture
    def method(self):
        return AKH(n_queries=24, images="trigger", batch=10)

    @pytest.fixture
    def independent(self):
        """One that answers otherwise: untrained models give nearly all images one class, and some the owner's."""
        return toy_model(seed=3, n_classes=3)


@pytest.fixture
def owner() -> VisionModel:
    return toy_model(n_classes=3)


def embed(owner: VisionModel, folder: Path, **params) -> amb.Embedding:
    return AKH(**params).embed(owner, toy_context(folder))


def answers_of(model: VisionModel, images: torch.Tensor) -> np.ndarray:
    with torch.no_grad():
        return np.array([int(model.logits(image[None]).argmax()) for image in images])


@pytest.mark.parametrize("role", ["owner", "trigger"])
def test_every_query_is_an_image_that_the_owner_gets_wrong(owner: VisionModel, tmp_path: Path, role) -> None:
    key = embed(owner, tmp_path, images=role, n_queries=20).key
    batch = toy_context(tmp_path).split(role).batch(range(128))
    truth = {image.numpy().tobytes(): int(label) for image, label in zip(batch.images, batch.labels, strict=True)}
    queries = torch.from_numpy(key.tensors["queries"])
    by_hand = answers_of(owner, queries)
    assert key.tensors["labels"].tolist() == by_hand.tolist()
    assert all(truth[query.numpy().tobytes()] != label for query, label in zip(queries, by_hand, strict=True))
    assert len({query.numpy().tobytes() for query in queries}) == 20


def test_random_queries_are_wrong_as_often_as_the_owner(owner: VisionModel, tmp_path: Path) -> None:
    embedding = embed(owner, tmp_path, queries="random", n_queries=128)
    batch = toy_context(tmp_path).split("owner").batch(range(128))
    wrong = answers_of(owner, batch.images) != batch.labels.numpy()
    assert 0 < wrong.mean() < 1
    assert embedding.facts["owner_error"] == pytest.approx(wrong.mean(), abs=1e-4)
    assert embedding.facts["queries_kept"] == 128


def test_a_key_has_what_there_is_and_says_so(owner: VisionModel, tmp_path: Path) -> None:
    batch = toy_context(tmp_path).split("owner").batch(range(128))
    n_wrong = int((answers_of(owner, batch.images) != batch.labels.numpy()).sum())
    facts = embed(owner, tmp_path, n_queries=1000).facts
    assert (facts["queries_asked"], facts["queries_kept"], facts["images_looked_at"]) == (1000, n_wrong, 128)
    assert embed(owner, tmp_path, n_queries=1000, n_images=30).facts["images_looked_at"] == 30


def test_the_suspect_is_asked_each_query_once(owner: VisionModel, tmp_path: Path) -> None:
    method = AKH(n_queries=20, batch=7)
    key = method.embed(owner, toy_context(tmp_path)).key
    other = toy_model(seed=2, n_classes=3)
    view = SuspectView(other, "labels")
    evidence = method.extract(view, key, toy_context(tmp_path, roles=()))
    assert view.queries == method.query_work().read == 20
    assert evidence.observed[:, 0].tolist() == answers_of(other, torch.from_numpy(key.tensors["queries"])).tolist()
    assert evidence.alphabet == 3


def test_declared_work_is_the_images_that_pass(owner: VisionModel, tmp_path: Path, monkeypatch) -> None:
    seen = []
    logits = VisionModel.logits
    monkeypatch.setattr(VisionModel, "logits", lambda model, images: seen.append(len(images)) or logits(model, images))
    for method in (AKH(n_images=50), AKH(queries="random", n_queries=40)):
        seen.clear()
        method.embed(owner, toy_context(tmp_path))
        assert sum(seen) == method.work(owner.facts()).read


def test_a_model_that_is_never_wrong_is_refused_in_one_line(owner: VisionModel, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(
        "amb_akh.fingerprint._ask_owner",
        lambda model, split, rows, *_: (rows, torch.zeros_like(rows, dtype=torch.bool)),
    )
    with pytest.raises(BadParamsError, match=r"gets all 128 owner images right.* queries=random") as caught:
        embed(owner, tmp_path)
    assert "\n" not in str(caught.value)


def test_a_head_of_other_classes_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(BadParamsError, match="toy/1 knows 4 classes, the images have 3"):
        embed(toy_model(n_classes=4), tmp_path)


@pytest.mark.parametrize(
    ("n_classes", "reason"),
    [(0, "toy/1 has no classification head"), (4, "the key's labels are of 3 classes, toy/1 has 4"), (3, None)],
)
def test_what_does_not_apply_is_skipped_with_a_reason(owner: VisionModel, tmp_path: Path, n_classes, reason) -> None:
    found = AKH().skip(toy_model(n_classes=n_classes).facts(), embed(owner, tmp_path, n_queries=1).key)
    assert found is None if reason is None else reason in found


@pytest.mark.parametrize("what", ["messages", "triggers"])
def test_whoever_makes_the_key_afterwards_owns_any_model(owner: VisionModel, tmp_path: Path, what: str) -> None:
    method, innocent = AKH(n_queries=20), toy_model(seed=2, n_classes=3)
    honest = method.embed(owner, toy_context(tmp_path)).key
    forged = method.forge(innocent, what, 60, toy_context(tmp_path, key=honest))
    assert forged.method == method.canonical()
    evidence = method.extract(SuspectView(innocent, "labels"), forged, toy_context(tmp_path, roles=()))
    assert bit_error_rate(evidence) == 0


def test_agreement_falls_as_the_key_reads_worse(owner: VisionModel, tmp_path: Path) -> None:
    method = AKH(n_queries=20)
    key = method.embed(owner, toy_context(tmp_path)).key
    drawn = torch.Generator().manual_seed(0)
    own = method.agreement(owner, key, 20, drawn)
    other = method.agreement(toy_model(seed=3, n_classes=3), key, 20, drawn)
    assert own > other
    assert own.requires_grad
