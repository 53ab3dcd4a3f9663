"""Cuts: the encoder without a part against the same computation written out step by step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import amb
from amb.plugin.manager import Manager
from amb.testing import toy_context, toy_model

IMAGES = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
TRANSFORMER = {"img_size": 16, "patch_size": 4, "embed_dim": 32, "depth": 4, "num_heads": 4}


def transformer(**options: Any) -> amb.VisionModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        options = {**TRANSFORMER, **options}
        model = amb.build_model({"loader": "timm", "name": "vit_tiny_patch16_224", "options": options})
    return model.eval()


def attacked(manager: Manager, spec: str, folder: Path, model: amb.VisionModel) -> amb.VisionModel:
    (attack,) = manager.registry.attack_chain(spec)
    return attack.apply(model, toy_context(folder, roles=("attacker",)))


def reason(manager: Manager, spec: str, model: amb.VisionModel) -> str:
    (attack,) = manager.registry.attack_chain(spec)
    return attack.skip(model) or ""


@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("make", [transformer, toy_model])
def test_dropped_blocks_are_passed_over(manager: Manager, tmp_path: Path, make: Any, n: int) -> None:
    source = make()
    cut = attacked(manager, f"cut-blocks:n={n}", tmp_path, source)
    with torch.no_grad():
        expected = source.backbone.finish(source.prefix(IMAGES, 3 - n))
        torch.testing.assert_close(cut.tokens(IMAGES), expected, rtol=0, atol=0)
    assert cut.facts().n_blocks == 4 - n


def test_a_cut_leaves_at_least_one_block(manager: Manager) -> None:
    assert "none would be left" in reason(manager, "cut-blocks:n=4", transformer())
    assert reason(manager, "cut-blocks:n=3", transformer()) == ""
    assert "fewer than 5" in reason(manager, "cut-rear:n=5", transformer())


def test_what_is_no_transformer_is_skipped(manager: Manager) -> None:
    channels = {"channels": [8, 8, 16, 16], "output_stride": 8}
    convnet = amb.build_model({"loader": "timm", "name": "resnet10t", "options": channels, "image_size": 16})
    for spec in ("cut-blocks", "cut-rear", "cut-registers", "cut-resolution"):
        assert reason(manager, spec, convnet)


def test_the_rear_is_made_anew_and_the_front_stays(manager: Manager, tmp_path: Path) -> None:
    source = transformer()
    cut = attacked(manager, "cut-rear:n=2,epochs=1,n_images=16,batch=8,lr=1e-9,weight_decay=0", tmp_path, source)
    before, after = source.backbone.state_dict(), cut.backbone.state_dict()
    rear = {name for name in before if name.startswith(("net.blocks.2.", "net.blocks.3."))}
    for name in before.keys() - rear:
        torch.testing.assert_close(after[name], before[name], rtol=0, atol=0)
    for name in rear:  # with next to no learning rate: timm's own initial weights, which are not those of the source
        part, values = name.split(".", 3)[3], after[name]
        if part.endswith("bias"):
            assert values.abs().max() < 1e-6
        elif "norm" not in part:
            assert not torch.allclose(values, before[name], atol=1e-3)
            assert values.std() == pytest.approx(0.02, rel=0.1)
    assert all(weight.requires_grad for weight in cut.parameters())


def test_the_new_rear_learns_the_attackers_task(manager: Manager, tmp_path: Path) -> None:
    source = toy_model()
    with torch.no_grad():
        for weight in source.backbone.blocks[3].parameters():
            weight.zero_().add_(float("nan"))  # whatever the old rear knew is gone
    cut = attacked(manager, "cut-rear:n=1,epochs=10,batch=16", tmp_path, source)
    batch = toy_context(tmp_path).split("test").batch(range(64))
    assert (cut.logits(batch.images).argmax(dim=1) == batch.labels).float().mean() > 0.9


@pytest.mark.parametrize("no_embed_class", [False, True])
def test_the_rest_computes_as_if_there_had_been_no_registers(
    manager: Manager, tmp_path: Path, no_embed_class: bool
) -> None:
    """A network built without registers, with the same other weights, is the reference."""
    source = transformer(reg_tokens=3, no_embed_class=no_embed_class)
    cut = attacked(manager, "cut-registers", tmp_path, source)
    state = {name: value for name, value in source.backbone.state_dict().items() if name != "net.reg_token"}
    if not no_embed_class:
        places = state["net.pos_embed"]
        state["net.pos_embed"] = torch.stack([places[:, index] for index in [0, *range(4, 20)]], dim=1)
    plain = transformer(no_embed_class=no_embed_class)
    plain.backbone.load_state_dict(state)
    with torch.no_grad():
        torch.testing.assert_close(cut.tokens(IMAGES), plain.tokens(IMAGES), rtol=0, atol=0)
        torch.testing.assert_close(cut.features(IMAGES), plain.features(IMAGES), rtol=0, atol=0)
        assert not torch.allclose(source.features(IMAGES), cut.features(IMAGES), atol=1e-4)
    assert cut.facts().n_tokens == 17


def test_the_toy_drops_its_registers_too(manager: Manager, tmp_path: Path) -> None:
    source = toy_model(registers=2)
    cut = attacked(manager, "cut-registers", tmp_path, source)
    with torch.no_grad():
        entering = source.embed(IMAGES)[:, [0, *range(3, 19)]]
        expected = source.backbone.finish(source.run_blocks(entering, 0, 4))
        torch.testing.assert_close(cut.tokens(IMAGES), expected)


def test_without_registers_there_is_nothing_to_drop(manager: Manager) -> None:
    assert "no register tokens" in reason(manager, "cut-registers", transformer())


@pytest.mark.parametrize(("factor", "size"), [(0.5, 8), (0.75, 12), (2, 32), (0.01, 4), (1, 16)])
@pytest.mark.parametrize("make", [transformer, toy_model])
def test_resolution_is_in_whole_patches(manager: Manager, tmp_path: Path, make: Any, factor: float, size: int) -> None:
    cut = attacked(manager, f"cut-resolution:factor={factor}", tmp_path, make())
    assert cut.backbone.image_size == size
    assert cut.facts().n_tokens == 1 + (size // 4) ** 2
    assert cut.features(IMAGES).shape == (4, 32)


@pytest.mark.parametrize("make", [transformer, toy_model])
def test_a_position_embedding_that_is_a_plane_stays_one(manager: Manager, tmp_path: Path, make: Any) -> None:
    """Interpolated to 2 x 2 places, a plane has at each of them the mean of the four places it stands for."""
    source = make()
    rows, columns = torch.meshgrid(torch.arange(4.0), torch.arange(4.0), indexing="ij")
    plane = (2 * rows + columns + 1).reshape(1, 16, 1).expand(1, 16, 32)
    name = "places" if make is toy_model else "net.pos_embed"
    weights = dict(source.backbone.named_parameters())
    weights[name].data[:, -16:] = plane
    cut = attacked(manager, "cut-resolution", tmp_path, source)
    found = dict(cut.backbone.named_parameters())[name].detach()[0, -4:, 0].reshape(2, 2)
    expected = plane[0, :, 0].reshape(2, 2, 2, 2).mean(dim=(1, 3))
    torch.testing.assert_close(found, expected, atol=0.35, rtol=0)  # bicubic kernels lean inwards at the rim
    torch.testing.assert_close(found.mean(), expected.mean(), atol=1e-4, rtol=0)
    torch.testing.assert_close(found[1] - found[0], (found[1] - found[0]).mean().expand(2), atol=1e-4, rtol=0)


def test_resolution_as_it_was_changes_nothing(manager: Manager, tmp_path: Path) -> None:
    source = transformer()
    cut = attacked(manager, "cut-resolution:factor=1", tmp_path, source)
    with torch.no_grad():
        torch.testing.assert_close(cut.features(IMAGES), source.features(IMAGES))


def test_cards_with_impossible_cuts_are_refused(manager: Manager) -> None:
    architecture = transformer().architecture
    for name, parameters in (("keep-blocks", {"n": 9}), ("resize", {"image_size": 15}), ("keep-blocks", {"n": 0})):
        with pytest.raises(amb.CheckpointError):
            amb.build_model({**architecture, "edits": [{"name": name, "parameters": parameters}]})
