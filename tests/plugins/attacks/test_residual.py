"""Attacks on the residual stream: what enters each block is caught by hooks and compared with the definition."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

import amb
from amb import build_model
from amb.api.vision import VisionModel
from amb.plugin.manager import Manager
from amb.testing import toy_context, toy_model


def attacked(manager: Manager, spec: str, model: VisionModel, folder: Path) -> VisionModel:
    (attack,) = manager.registry.attack_chain(spec)
    return attack.apply(model, toy_context(folder, roles=("attacker",), method=None))


def images(folder: Path) -> torch.Tensor:
    return toy_context(folder).split("attacker").batch(range(100)).images


@torch.no_grad()
def caught(model: VisionModel, pictures: torch.Tensor) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """What each block is given and what it computes with: inputs before all hooks, and after them."""
    given: list[np.ndarray] = []
    used: list[np.ndarray] = []
    model = model.copy()
    for block in model.backbone.blocks:
        block.register_forward_pre_hook(lambda _, args: given.append(args[0].numpy().copy()), prepend=True)
        block.register_forward_pre_hook(lambda _, args: used.append(args[0].numpy().copy()))
    model.features(pictures)
    return given, used


def spiked(dims: Sequence[int], **sizes: int) -> VisionModel:
    """A toy that adds a constant of 50 to some dimensions of every token, as massive activations do."""
    model = toy_model(**sizes)
    model.backbone.places.data[:, 3, list(dims)] += 50.0
    return model


@pytest.mark.parametrize("where", ["all", "2"])
def test_erasing_puts_the_largest_dimensions_to_zero(manager: Manager, tmp_path: Path, where: str) -> None:
    model = spiked([5, 17])
    erased = attacked(manager, f"adaptive-erase:dims=2,block={where}", model, tmp_path)
    given, used = caught(erased, images(tmp_path))
    for block, (before, after) in enumerate(zip(given, used, strict=True)):
        expected = before.copy()
        if where == "all" or block == 2:
            expected[:, :, [5, 17]] = 0
        np.testing.assert_array_equal(after, expected)
        assert where == "all" or block >= 2 or np.abs(after[:, :, 5]).max() > 40


def test_erasing_to_the_mean_keeps_the_mean_of_the_original_stream(manager: Manager, tmp_path: Path) -> None:
    model = spiked([5, 17])
    _, original = caught(model, images(tmp_path))
    _, used = caught(attacked(manager, "adaptive-erase-mean:dims=2", model, tmp_path), images(tmp_path))
    for before, after in zip(original, used, strict=True):
        mean = before[:, :, [5, 17]].astype(np.float64).mean(axis=(0, 1))
        np.testing.assert_allclose(after[:, :, [5, 17]], np.broadcast_to(mean, (*after.shape[:2], 2)), rtol=1e-4)


def test_clipping_stands_at_the_quantile_of_each_block(manager: Manager, tmp_path: Path) -> None:
    model = spiked([5])
    _, original = caught(model, images(tmp_path))
    clipped = attacked(manager, "adaptive-clip:share=0.02", model, tmp_path)
    given, used = caught(clipped, images(tmp_path))
    for whole, before, after in zip(original, given, used, strict=True):
        level = np.quantile(np.abs(whole), 0.98, method="inverted_cdf")
        assert np.abs(after).max() == pytest.approx(level)
        np.testing.assert_allclose(after, np.clip(before, -level, level), rtol=1e-6)
        assert np.abs(after).max() < 20 < 40 < np.abs(original[0]).max()


@pytest.mark.parametrize("registers", [0, 2])
def test_a_scrambled_channel_is_permuted_or_averaged(manager: Manager, tmp_path: Path, registers: int) -> None:
    model = toy_model(registers=registers)
    touched = [0, *range(1 + registers, 17 + registers)]
    for how in ("shuffle", "mean"):
        twin = attacked(manager, f"adaptive-scramble:index=3,how={how}", model, tmp_path)
        given, used = caught(twin, images(tmp_path)[:8])
        orders = set()
        for before, after in zip(given, used, strict=True):
            expected = before.copy()
            channel = before[:, touched, 3]
            if how == "mean":
                expected[:, touched, 3] = channel.mean(axis=1, keepdims=True)
            else:  # find the permutation from the first image; it has to hold for the others
                order = [int(np.flatnonzero(channel[0] == value)[0]) for value in after[0, touched, 3]]
                assert sorted(order) == list(range(17))
                expected[:, touched, 3] = channel[:, order]
                orders.add(tuple(order))
            np.testing.assert_allclose(after, expected, rtol=1e-5, atol=1e-6)
            assert not np.allclose(after, before)
        assert how == "mean" or len(orders) == 1


def test_a_scrambled_token_is_the_mean_of_its_neighbours(manager: Manager, tmp_path: Path) -> None:
    beside = {1: [2, 5], 7: [3, 6, 8, 11], 16: [12, 15]}  # tokens 1 ... 16 are the patches of a 4 x 4 grid
    for index, others in beside.items():
        spec = f"adaptive-scramble:carrier=token,how=mean,index={index},amount=0.5"
        given, used = caught(attacked(manager, spec, toy_model(), tmp_path), images(tmp_path)[:8])
        for before, after in zip(given, used, strict=True):
            expected = before.copy()
            expected[:, index] = (before[:, index] + before[:, others].mean(axis=1)) / 2
            np.testing.assert_allclose(after, expected, rtol=1e-5, atol=1e-6)


def test_what_is_injected_between_blocks_is_scrambled(manager: Manager, tmp_path: Path) -> None:
    """As ActiveMark injects: tokens that leave a block are changed by hand and sent on."""
    model = toy_model()
    twin = attacked(manager, "adaptive-scramble-mean", model, tmp_path)
    with torch.no_grad():
        tokens = model.prefix(images(tmp_path)[:4], 1)
        other = tokens.clone()
        other[:, :, 0] = other[:, :, 0].roll(5, dims=1)  # another message with the same mean
        assert (model.suffix(other, 1) - model.suffix(tokens, 1)).abs().max() > 1e-2
        torch.testing.assert_close(twin.suffix(other, 1), twin.suffix(tokens, 1), rtol=1e-4, atol=1e-5)


def test_a_block_stays_a_block(manager: Manager, tmp_path: Path) -> None:
    model = amb.load_model("tiny/owner")
    twin = attacked(manager, "adaptive-clip", model, tmp_path)
    assert [type(block) for block in twin.backbone.blocks] == [type(block) for block in model.backbone.blocks]
    torch.testing.assert_close(twin.backbone.parts(2).up.weight, model.backbone.parts(2).up.weight)
    assert set(model.state_dict()) < set(twin.state_dict())
    twin.backbone.keep_blocks([0, 3])
    level = twin.backbone.net.blocks[1].input_edits[0].level
    _, used = caught(twin, images(tmp_path)[:4])
    assert len(used) == 2
    assert np.abs(used[1]).max() <= level


def test_edits_add_up_and_are_built_again(manager: Manager, tmp_path: Path) -> None:
    model = spiked([5, 17])
    for spec in ("adaptive-erase:dims=1", "adaptive-clip:share=0.01,block=1", "adaptive-clip:share=0.1,block=1"):
        model = attacked(manager, spec, model, tmp_path)
    again = build_model(model.architecture)
    again.load_state_dict(model.state_dict())
    pictures = images(tmp_path)[:4]
    with torch.no_grad():
        torch.testing.assert_close(again.eval().features(pictures), model.features(pictures), rtol=0, atol=0)
    assert len(again.backbone.layers[1].input_edits) == 3
    assert len(again.backbone.layers[2].input_edits) == 1


def test_what_does_not_apply_says_so(manager: Manager) -> None:
    def reason(spec: str, model: VisionModel) -> str:
        (attack,) = manager.registry.attack_chain(spec)
        return attack.skip(model) or ""

    assert "no transformer blocks" in reason("adaptive-clip", amb.load_model("tiny/convnet"))
    assert "has no block 9" in reason("adaptive-erase:block=9", toy_model())
    assert "32 dimensions" in reason("adaptive-erase:dims=40", toy_model())
    assert "no token 46 (it has 17)" in reason("adaptive-scramble-token", toy_model())
    assert "no neighbours" in reason("adaptive-scramble-token:index=0", toy_model())
    assert not reason("adaptive-scramble-token", amb.load_model("tiny/owner"))


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("erase-stream", {"dims": [99]}),
        ("erase-stream", {"dims": [-1]}),
        ("clip-stream", {"block": 7}),
        ("scramble-stream", {"carrier": "channel", "index": 0, "how": "mean", "amount": 2, "shuffle": 0}),
    ],
)
def test_a_strangers_card_is_bounded(manager: Manager, name: str, parameters: dict) -> None:
    architecture = {**toy_model().architecture, "edits": [{"name": name, "parameters": parameters}]}
    with pytest.raises(amb.CheckpointError):
        build_model(architecture)
