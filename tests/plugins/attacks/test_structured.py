"""Structured pruning: the smaller model answers as the full one with the same heads and channels held at zero."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import amb
from amb.plugin.manager import Manager
from amb.testing import toy_context, toy_model
from amb_attacks.structured import BlockWidths

SIZES = {"img_size": 16, "patch_size": 4, "embed_dim": 32, "depth": 3, "num_heads": 4, "reg_tokens": 2}
HEAD, CHANNELS = 8, 128  # width of a head, channels of an MLP


def transformer(**more: Any) -> amb.VisionModel:
    """A small transformer with random weights large enough to matter, biases too."""
    model = amb.build_model({"loader": "timm", "name": "vit_tiny_patch16_224", "options": {**SIZES, **more}})
    generator = torch.Generator().manual_seed(3)
    for weight in model.backbone.parameters():
        weight.data = 0.3 * torch.randn(weight.shape, generator=generator)
    return model.eval()


def prune(manager: Manager, folder: Path, spec: str, model: amb.VisionModel) -> amb.VisionModel:
    ctx = toy_context(folder, roles=("attacker",))
    for attack in manager.registry.attack_chain(spec):
        assert attack.skip(model) is None
        model = attack.apply(model, ctx)
    return model


def features(model: amb.VisionModel) -> Tensor:
    images = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return model.features(images)


def squares(parts: amb.BlockParts, part: str) -> Tensor:
    """The sum of squared weights of each head or channel, by hand."""
    if part == "channels":
        return parts.up.weight.square().sum(dim=1) + parts.down.weight.square().sum(dim=0)
    inward = sum(each.weight.square().sum(dim=1) for each in (parts.query, parts.key, parts.value))
    return (inward + parts.output.weight.square().sum(dim=0)).view(-1, HEAD).sum(dim=1)


@pytest.mark.parametrize(
    ("part", "amount", "n_removed"),
    [
        ("heads", 0.25, 1),
        ("heads", 0.5, 2),
        ("heads", 0.6, 2),  # 2.4
        ("heads", 0.99, 3),  # one stays
        ("channels", 0.3, 38),  # 38.4
        ("channels", 0.8, 102),
        ("channels", 0.999, 127),
    ],
)
def test_is_the_full_model_with_the_weakest_at_zero(
    manager: Manager, tmp_path: Path, part: str, amount: float, n_removed: int
) -> None:
    model = transformer()
    pruned = prune(manager, tmp_path, f"prune-structured:part={part},amount={amount}", model)
    masked = model.copy()
    width = HEAD if part == "heads" else 1
    for index in range(model.n_blocks):
        parts = masked.backbone.parts(index)
        assert parts is not None
        gone = squares(parts, part).topk(n_removed, largest=False).indices
        columns = parts.output.weight if part == "heads" else parts.down.weight
        columns.view(32, -1, width)[:, gone] = 0
    torch.testing.assert_close(features(pruned), features(masked), rtol=1e-4, atol=1e-5)
    assert (features(pruned) - features(model)).abs().max() > 0.05


@pytest.mark.parametrize(
    ("spec", "lost"),
    [
        ("prune-heads50", 3 * 2 * (3 * HEAD * (32 + 1) + HEAD * 32)),  # 3 blocks x 2 heads
        ("prune-channels40", 3 * 51 * (32 + 1 + 32)),  # 3 blocks x 51 channels
        ("prune-channels40+prune-heads50", 3 * 51 * 65 + 3 * 2 * (3 * HEAD * 33 + HEAD * 32)),
    ],
)
def test_weights_are_really_gone(manager: Manager, tmp_path: Path, spec: str, lost: int) -> None:
    model = transformer()
    pruned = prune(manager, tmp_path, spec, model)
    n_before, n_after = (sum(weight.numel() for weight in each.parameters()) for each in (model, pruned))
    assert n_before - n_after == lost


def test_blocks_still_have_their_parts(manager: Manager, tmp_path: Path) -> None:
    model = transformer()
    pruned = prune(manager, tmp_path, "prune-heads25+prune-channels20", model)
    full, parts = model.backbone.parts(1), pruned.backbone.parts(1)
    assert full is not None
    assert parts is not None
    kept = squares(full, "heads").topk(3).indices.sort().values
    assert parts.n_heads == 3
    for name in ("query", "key", "value"):
        before, after = getattr(full, name), getattr(parts, name)
        torch.testing.assert_close(after.weight, before.weight.view(4, HEAD, 32)[kept].flatten(0, 1))
        torch.testing.assert_close(after.bias, before.bias.view(4, HEAD)[kept].flatten())
    assert parts.up.weight.shape == (CHANNELS - 26, 32)
    assert parts.down.weight.shape == (32, CHANNELS - 26)


def test_a_pruned_model_can_be_tuned_pruned_again_and_saved(manager: Manager, tmp_path: Path) -> None:
    tuned = prune(manager, tmp_path, "prune-heads50+finetune:epochs=1,n_images=16+prune-heads50+prune40", transformer())
    parts = tuned.backbone.parts(0)
    assert parts is not None
    assert parts.n_heads == 1
    amb.save_checkpoint(tuned, tmp_path / "m")
    torch.testing.assert_close(features(amb.load_checkpoint(tmp_path / "m", "m", amb.build_model)), features(tuned))


def test_reports_what_is_left(manager: Manager, tmp_path: Path) -> None:
    (attack,) = manager.registry.attack_chain("prune-heads75")
    ctx = toy_context(tmp_path, roles=("attacker",))
    attack.apply(transformer(), ctx)
    assert ctx.notes == {"heads_left": 3, "channels_left": 3 * CHANNELS}


def test_skips_what_has_no_plain_blocks(manager: Manager) -> None:
    (attack,) = manager.registry.attack_chain("prune-heads50")
    convnet = amb.build_model({"loader": "timm", "name": "resnet10t", "options": {}, "image_size": 32})
    normed = transformer()
    normed.backbone.net.blocks[1].attn.q_norm = torch.nn.LayerNorm(HEAD)
    for model in (convnet, toy_model(), normed):
        assert "no plain transformer blocks" in attack.skip(model)
    assert "one attention head" in attack.skip(transformer(num_heads=1))


def test_the_edit_draws_nothing_and_keeps_the_first(manager: Manager) -> None:
    model = transformer()
    state = torch.random.get_rng_state()
    small = amb.edited(model, BlockWidths(heads=(1, 4, 2), channels=(5, 128, 1)))
    assert torch.equal(torch.random.get_rng_state(), state)
    full, parts = model.backbone.parts(2), small.backbone.parts(2)
    assert full is not None
    assert parts is not None
    torch.testing.assert_close(parts.key.weight, full.key.weight[: 2 * HEAD])
    torch.testing.assert_close(parts.down.weight, full.down.weight[:, :1])
    assert features(small).isfinite().all()
    torch.testing.assert_close(features(model), features(transformer()), rtol=0, atol=0)


@pytest.mark.parametrize(
    "widths",
    [
        {"heads": [5, 4, 4], "channels": [128] * 3},
        {"heads": [4] * 3, "channels": [128, 129, 128]},
        {"heads": [4] * 2, "channels": [128] * 2},
        {"heads": [4] * 3, "channels": [128] * 4},
        {"heads": [0, 4, 4], "channels": [128] * 3},
        {"heads": [4] * 3, "channels": [1.5] * 3},
        {"heads": [4] * 5000, "channels": [1] * 5000},
    ],
)
def test_a_strangers_card_cannot_widen_or_empty_a_block(manager: Manager, widths: dict[str, Any]) -> None:
    edits = [{"name": "block-widths", "parameters": widths}]
    with pytest.raises(amb.CheckpointError):
        amb.build_model({"loader": "timm", "name": "vit_tiny_patch16_224", "options": SIZES, "edits": edits})
