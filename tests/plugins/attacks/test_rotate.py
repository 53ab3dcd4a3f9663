"""Rotations: the stream turns and the function stays, or the output turns and nothing is lost."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import amb
from amb.testing import toy_context, toy_model
from amb_attacks.rotate import MapTokens, Rotate
from amb_attacks.rotate_torch import draw_rotation_of_norms


def lively() -> amb.VisionModel:
    """A toy whose norms and biases are not 1 and 0, as if it had been trained."""
    model, drawn = toy_model(n_classes=3), torch.Generator().manual_seed(3)
    for name, weight in model.backbone.named_parameters():
        if "norm" in name or "bias" in name:
            weight.data.add_(0.3 * torch.randn(weight.shape, generator=drawn))
    return model


def images(size: int = 16) -> torch.Tensor:
    return torch.rand(24, 3, size, size, generator=torch.Generator().manual_seed(0))


def rotated(model: amb.VisionModel, what: str, folder: Path) -> amb.VisionModel:
    return Rotate(what=what).apply(model, toy_context(folder, roles=("attacker",)))


@torch.no_grad()
def test_the_function_stays_and_the_stream_turns(tmp_path: Path) -> None:
    model = lively()
    turned = rotated(model, "stream", tmp_path)
    torch.testing.assert_close(turned.tokens(images()), model.tokens(images()), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(turned.logits(images()), model.logits(images()), rtol=1e-4, atol=1e-4)
    for block in range(model.n_blocks):
        before, after = (each.prefix(images(), block) for each in (model, turned))
        torch.testing.assert_close(before.norm(dim=2), after.norm(dim=2), rtol=1e-3, atol=1e-3)
        assert torch.nn.functional.cosine_similarity(before, after, dim=2).abs().mean() < 0.5


@torch.no_grad()
def test_the_embedded_transformer_turns_too(tmp_path: Path) -> None:
    model = amb.load_model("tiny/owner")
    turned = rotated(model, "stream", tmp_path)
    torch.testing.assert_close(turned.features(images(32)), model.features(images(32)), rtol=1e-3, atol=1e-3)


@torch.no_grad()
def test_the_output_turns_and_keeps_its_angles(tmp_path: Path) -> None:
    model = lively()
    turned = rotated(model, "output", tmp_path)
    before, after = model.features(images()), turned.features(images())
    torch.testing.assert_close(after @ after.T, before @ before.T, rtol=1e-4, atol=1e-4)
    assert torch.nn.functional.cosine_similarity(before, after).abs().mean() < 0.5
    assert not turned.heads


def test_a_rotation_of_norms_leaves_the_mean_alone() -> None:
    rotation = draw_rotation_of_norms(12, torch.Generator().manual_seed(0))
    torch.testing.assert_close(rotation @ rotation.T, torch.eye(12, dtype=torch.float64))
    torch.testing.assert_close(rotation.sum(dim=0), torch.ones(12, dtype=torch.float64))


def test_what_cannot_be_turned_is_skipped() -> None:
    assert "no plain transformer blocks" in (Rotate().skip(amb.load_model("tiny/convnet")) or "")
    model = toy_model()
    model.backbone.norm = torch.nn.Identity()
    assert "norm behind its blocks" in (Rotate().skip(model) or "")
    mapped = amb.edited(toy_model(), MapTokens(where="first"))
    assert "edits in its stream" in (Rotate().skip(mapped) or "")
    with pytest.raises(amb.CheckpointError, match="linear map there already"):
        amb.edited(mapped, MapTokens(where="first"))


@torch.no_grad()
def test_the_edit_alone_changes_nothing() -> None:
    model = lively()
    mapped = amb.edited(amb.edited(model, MapTokens(where="first")), MapTokens(where="last"))
    torch.testing.assert_close(mapped.features(images()), model.features(images()))
