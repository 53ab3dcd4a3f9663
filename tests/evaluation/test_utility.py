"""Utility and similarity against other ways of computing them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from amb.evaluation import utility as fidelity
from amb.models.heads import SegmentationHead
from amb.testing import toy_context, toy_model


def test_mean_iou_matches_a_count_by_hand() -> None:
    guess = torch.tensor([[[0, 0, 1], [1, 1, 0]]])
    truth = torch.tensor([[[0, 1, 1], [1, 0, 0]]])
    assert fidelity.mean_iou(guess, truth, 2) == pytest.approx((2 / 4 + 2 / 4) / 2)


def test_cka_matches_the_kernel_form_and_its_invariances() -> None:
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(40, 6, generator=generator).double(), torch.randn(40, 9, generator=generator).double()
    centre = torch.eye(40).double() - 1 / 40
    k, l_ = centre @ x @ x.T @ centre, centre @ y @ y.T @ centre
    hsic = (k * l_).sum() / (k.norm() * l_.norm())
    assert fidelity.linear_cka(x, y) == pytest.approx(hsic.item())
    rotation, _ = torch.linalg.qr(torch.randn(6, 6, generator=generator).double())
    assert fidelity.linear_cka(x, 3 * x @ rotation) == pytest.approx(1.0)


def test_similarity_of_a_model_with_itself_is_one(tmp_path: Path) -> None:
    model = toy_model()
    alike = fidelity.compare(model, model.copy(), toy_context(tmp_path), n=32)
    assert alike == {"cosine": pytest.approx(1.0), "cka": pytest.approx(1.0)}


def test_features_of_other_sizes_have_no_cosine() -> None:
    pair = fidelity.similarity(torch.rand(8, 4), torch.rand(8, 5))
    assert np.isnan(pair.cosine)
    assert 0 <= pair.cka <= 1


def test_utility_reads_probes_and_the_models_own_heads(tmp_path: Path) -> None:
    model = toy_model(n_classes=3)
    figures = fidelity.utility(model, toy_context(tmp_path, roles=("attacker", "test")), n_probe=64, n_test=64)
    assert set(figures) == {"knn", "probe", "miou", "head_accuracy"}
    batch = toy_context(tmp_path).split("test").batch(range(64))
    by_hand = (model.logits(batch.images).argmax(dim=1) == batch.labels).float().mean().item()
    assert figures["head_accuracy"] == pytest.approx(by_hand, abs=1e-4)
    segmenter = model.with_head("segmentation", SegmentationHead(32, 2))
    figures = fidelity.utility(segmenter, toy_context(tmp_path, roles=("attacker", "test")), n_probe=64, n_test=64)
    guess = segmenter.logits(batch.images, "segmentation").argmax(dim=1)
    pairs = [((guess == c) & (batch.masks == c), (guess == c) | (batch.masks == c)) for c in (0, 1)]
    by_hand = np.mean([both.sum().item() / either.sum().item() for both, either in pairs])
    assert figures["head_miou"] == pytest.approx(by_hand, abs=1e-4)


def test_a_head_for_other_classes_is_not_scored(tmp_path: Path) -> None:
    figures = fidelity.utility(toy_model(n_classes=7), toy_context(tmp_path), n_probe=64, n_test=64)
    assert "head_accuracy" not in figures


def test_the_mask_probe_finds_masks_that_lie_in_the_tokens(tmp_path: Path) -> None:
    """Tokens that spell out their own pixels' mask give a perfect probe."""
    masks = toy_context(tmp_path).split("test").batch(range(60)).masks
    assert masks is not None
    patches = masks.float().unfold(1, 4, 4).unfold(2, 4, 4).flatten(3)
    assert fidelity._score_mask_probe(patches, masks, patches, masks) > 0.999
