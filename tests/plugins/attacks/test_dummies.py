"""Neurons that change nothing: the function stays, no neuron keeps its place, and cards cannot ask for too much."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import amb
from amb.plugin.manager import Manager
from amb.testing import toy_context, toy_model
from amb_attacks.dummies import DummyNeurons, WiderMlps

KINDS = ["all", "silent", "cancelling", "split"]


def dummied(model: amb.VisionModel, folder: Path, **params: Any) -> amb.VisionModel:
    return DummyNeurons(**params).apply(model, toy_context(folder, roles=("attacker",)))


def mlp(model: amb.VisionModel, block: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """What each neuron reads, with its bias, and what it writes."""
    parts = model.backbone.parts(block)
    return torch.cat([parts.up.weight, parts.up.bias[:, None]], dim=1).detach(), parts.down.weight.T.detach()


@pytest.mark.parametrize("how", KINDS)
@pytest.mark.parametrize("share", [0.05, 1.5])
def test_the_function_stays_and_the_neurons_are_more(how: str, share: float, tmp_path: Path) -> None:
    model = toy_model()
    wide = dummied(model, tmp_path, how=how, share=share)
    images = torch.rand(8, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(wide.features(images), model.features(images), rtol=1e-4, atol=1e-4)
    for block in range(model.n_blocks):
        assert len(mlp(wide, block)[0]) == 64 + round(share * 64)


def test_a_third_of_each_kind(tmp_path: Path) -> None:
    model = toy_model()
    reads, writes = mlp(dummied(model, tmp_path, share=0.75))  # 48 more: 16 silent, 8 pairs, 16 twins
    assert int((writes == 0).all(dim=1).sum()) == 16
    same = (reads[:, None] == reads).all(dim=2).sum(dim=1)
    assert int((same == 2).sum()) == 2 * 8 + 2 * 16
    own = mlp(model)[0]
    known = (reads[:, None] == own).all(dim=2).any(dim=1).sum()
    assert int(known) == 64 + 16, "the model's own neurons, and their twins"


def test_what_pairs_write_cancels_and_what_twins_write_adds_up(tmp_path: Path) -> None:
    model = toy_model()
    own_reads, own_writes = mlp(model)
    for how in ("cancelling", "split"):
        reads, writes = mlp(dummied(model, tmp_path, how=how))
        for read, wrote in zip(own_reads, own_writes, strict=True):
            twins = (reads == read).all(dim=1)
            torch.testing.assert_close(writes[twins].sum(dim=0), wrote, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(writes.sum(dim=0), own_writes.sum(dim=0), rtol=1e-4, atol=1e-4)


def test_neurons_are_shuffled(tmp_path: Path) -> None:
    model = toy_model()
    reads, _ = mlp(dummied(model, tmp_path))
    kept = (reads[:64] == mlp(model)[0]).all(dim=1).sum()
    assert kept < 8


def test_none_added_leaves_all_as_it_was(tmp_path: Path) -> None:
    model = toy_model()
    for one, other in zip(dummied(model, tmp_path, share=0).parameters(), model.parameters(), strict=True):
        assert torch.equal(one, other)


def test_it_works_on_the_embedded_transformer_and_skips_networks_without_blocks(manager: Manager) -> None:
    attack = DummyNeurons()
    assert attack.skip(amb.load_model("tiny/owner")) is None
    assert "no plain transformer blocks" in (attack.skip(amb.load_model("tiny/convnet")) or "")
    odd = amb.load_model("tiny/owner")
    odd.backbone.net.blocks[1].attn.q_norm = torch.nn.LayerNorm(32)
    assert attack.skip(odd)


@pytest.mark.parametrize("channels", [(64, 64, 64, 63), (64, 64, 64), (64,) * 5])
def test_an_edit_cannot_narrow_or_miss_a_block(channels: tuple[int, ...]) -> None:
    with pytest.raises(amb.CheckpointError, match="cannot be widened"):
        amb.edited(toy_model(), WiderMlps(channels=channels))


@pytest.mark.parametrize("channels", [[10**9] * 6, [384.5] * 6, [384] * 5000])
def test_a_strangers_card_cannot_ask_for_too_much(manager: Manager, channels: list[Any]) -> None:
    architecture = amb.load_model("tiny/owner").architecture
    edits = [{"name": "wider-mlps", "parameters": {"channels": channels}}]
    with pytest.raises(amb.CheckpointError):
        amb.build_model({**architecture, "edits": edits})
