"""The activation profile finds a bias that was planted at a known block, and says when there is none."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from amb.api.vision import VisionModel
from amb.evaluation.activations import Profile, activation_profile, choose_block, draw_profile
from amb.testing import toy_model

IMAGES = torch.rand(20, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def planted(block: int, size: float, depth: int = 6) -> VisionModel:
    """A toy transformer in which feature 5 of every token is raised by `size` from a block on."""
    model = toy_model(depth=depth)
    with torch.no_grad():
        model.backbone.blocks[block].linear2.bias[5] += size
    return model


@pytest.mark.parametrize("block", [1, 2, 4])
def test_a_planted_massive_activation_is_found(block: int) -> None:
    profile = activation_profile(planted(block, 5000.0), IMAGES)
    assert profile.expressive_block == block
    assert profile.massive_features == (5,)
    assert profile.massive_share == pytest.approx([0.0] * block + [1.0] * (6 - block))
    assert choose_block(profile, 0.5)[0] == block


def test_a_clear_jump_that_is_not_massive_is_found() -> None:
    profile = activation_profile(planted(3, 30.0), IMAGES)
    assert profile.massive_features == ()
    assert profile.expressive_block == profile.largest_jump == 3


def test_none_found_is_an_answer() -> None:
    profile = activation_profile(toy_model(depth=6), IMAGES)
    assert profile.expressive_block is None
    assert choose_block(profile, 0.5) == (2, "none found, falling back to block 2 (0.5 of the depth)")


def test_a_last_block_cannot_be_embedded_at() -> None:
    block, why = choose_block(activation_profile(planted(5, 5000.0), IMAGES), 0.5)
    assert block == 2
    assert why == "none found but block 5, which is the last, falling back to block 2 (0.5 of the depth)"


def test_the_last_block_does_not_outdo_one_that_a_trained_block_follows() -> None:
    """The profile of a real DINOv2 ViT-S/14 on photographs: the last block rises most, and nothing is trained after it."""
    top = (0.9, 1.0, 1.1, 1.3, 1.5, 1.7, 1.9, 2.1, 2.24, 4.7, 6.2, 24.0)
    profile = Profile(top, (0.1,) * 12, (0.0,) * 12, (), 100)
    block, why = choose_block(profile)
    assert block == 9
    assert (
        why
        == "expressive block 9: the largest jump, 2.1 times the block before it, its rise 1.6 times the next largest"
    )


def test_a_dead_network_has_a_profile_and_a_figure(tmp_path: Path) -> None:
    profile = Profile((0.0, 0.0, 0.0), (0.0, 0.0, 0.0), (0.0, 0.0, 0.0), (), 5)
    assert choose_block(profile) == (1, "none found, falling back to block 1 (0.5 of the depth)")
    draw_profile(profile, "dead", tmp_path / "profile.png", 1)
    assert (tmp_path / "profile.png").exists()


def test_the_profile_matches_a_plain_computation() -> None:
    model = toy_model()
    profile = activation_profile(model, IMAGES, batch_size=7)
    with torch.no_grad():
        for block in range(model.n_blocks):
            tokens = model.prefix(IMAGES, block).abs()
            top = [sorted(image.flatten().tolist())[-5:] for image in tokens]
            assert profile.top[block] == pytest.approx(sum(map(sum, top)) / 5 / len(top), rel=1e-5)


def test_the_figure_is_drawn(tmp_path: Path) -> None:
    draw_profile(activation_profile(toy_model(), IMAGES), "toy", tmp_path / "profile.png", 1)
    assert (tmp_path / "profile.png").read_bytes().startswith(b"\x89PNG")
