"""Rewritings of a network's weights, checked against the definition of attention and on the embedded model."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import amb
from amb.api.context import Context
from amb.api.vision import BlockParts, VisionModel
from amb.plugin.manager import Manager
from amb.testing import toy_context, toy_model

NAMES = ["permute-neurons", "permute-heads", "fold-norms", "change-basis", "reparametrize"]


def rewritten(manager: Manager, spec: str, model: VisionModel, folder: Path) -> VisionModel:
    (attack,) = manager.registry.attack_chain(spec)
    return attack.apply(model, toy_context(folder, roles=("attacker",)))


def lively(**sizes: int) -> VisionModel:
    """A toy whose norms and biases are not 1 and 0, as if it had been trained."""
    model = toy_model(**sizes)
    generator = torch.Generator().manual_seed(3)
    for name, weight in model.backbone.named_parameters():
        if "norm" in name or "bias" in name:
            weight.data.add_(0.5 * torch.randn(weight.shape, generator=generator))
    return model


def parts_of(model: VisionModel, block: int = 0) -> BlockParts:
    parts = model.backbone.parts(block)
    assert parts is not None
    return parts


def heads_of(parts: BlockParts, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Attention logits (heads, tokens, tokens) and what each head adds to the stream, from the definition."""
    read = torch.nn.functional.layer_norm(tokens, tokens.shape[-1:], parts.norm1.weight, parts.norm1.bias)
    size = len(parts.query.weight) // parts.n_heads
    logits, adds = [], []
    for head in range(parts.n_heads):
        rows = slice(head * size, (head + 1) * size)
        query, key, value = (read @ p.weight[rows].T + p.bias[rows] for p in (parts.query, parts.key, parts.value))
        logits.append(query @ key.T)
        adds.append(logits[-1].softmax(dim=1) @ value @ parts.output.weight[:, rows].T)
    return torch.stack(logits), torch.stack(adds)


@pytest.mark.parametrize("name", NAMES)
def test_the_embedded_model_stays_the_same_function(manager: Manager, tmp_path: Path, name: str) -> None:
    owner = amb.load_model("tiny/owner")
    split = manager.registry.suite("tiny").split("attacker")
    ctx = Context(("0",), {"attacker": split}, tmp_path)
    (attack,) = manager.registry.attack_chain(name)
    twin = attack.apply(owner, ctx)
    images = split.batch(range(200, 300)).images  # not those that the attack looked at itself
    with torch.no_grad():
        before, after = owner.features(images), twin.features(images)
    assert ((before - after).abs().max() / before.abs().max()).item() < 1e-4
    assert ctx.notes["features_moved"] < 1e-4
    assert sum((a != b).sum().item() for a, b in zip(owner.parameters(), twin.parameters(), strict=True)) > 1000


@pytest.mark.parametrize("name", NAMES)
def test_every_block_changes_in_the_parts_that_are_meant(manager: Manager, tmp_path: Path, name: str) -> None:
    model = lively()
    twin = rewritten(manager, name, model, tmp_path)
    attention, mlp = {"query", "key", "value", "output"}, {"up", "down"}
    expected = {
        "permute-neurons": mlp,
        "permute-heads": attention,
        "fold-norms": {"query", "key", "value", "up", "norm1", "norm2"},
        "change-basis": attention,
        "reparametrize": attention | mlp | {"norm1", "norm2"},
    }[name]
    for block in range(model.n_blocks):
        before, after = parts_of(model, block), parts_of(twin, block)
        changed = {
            part
            for part in (*sorted(attention | mlp), "norm1", "norm2")
            if not torch.equal(getattr(before, part).weight, getattr(after, part).weight)
        }
        assert changed == expected


def test_neurons_are_the_same_in_another_order(manager: Manager, tmp_path: Path) -> None:
    model = lively()
    before, after = parts_of(model), parts_of(rewritten(manager, "permute-neurons", model, tmp_path))

    def neurons(parts: BlockParts) -> list[list[float]]:  # input weights, bias and output weights of each
        return torch.cat([parts.up.weight, parts.up.bias[:, None], parts.down.weight.T], dim=1).tolist()

    assert neurons(before) != neurons(after)
    assert sorted(neurons(before)) == sorted(neurons(after))


def test_heads_do_the_same_in_another_order(manager: Manager, tmp_path: Path) -> None:
    model = lively()
    tokens = torch.randn(6, 32, generator=torch.Generator().manual_seed(0))
    twin = rewritten(manager, "permute-heads", model, tmp_path)
    _, before = heads_of(parts_of(model), tokens)
    _, after = heads_of(parts_of(twin), tokens)
    order = torch.cdist(before.flatten(1), after.flatten(1)).argmin(dim=0)
    assert sorted(order.tolist()) == [0, 1, 2, 3]
    assert order.tolist() != [0, 1, 2, 3]
    torch.testing.assert_close(after, before[order])


def test_norms_are_left_without_gain_and_bias(manager: Manager, tmp_path: Path) -> None:
    model = lively()
    twin = rewritten(manager, "fold-norms", model, tmp_path)
    for block in range(model.n_blocks):
        for norm in (parts_of(twin, block).norm1, parts_of(twin, block).norm2):
            assert (norm.weight == 1).all()
            assert (norm.bias == 0).all()
    torch.testing.assert_close(twin.backbone.norm.state_dict(), model.backbone.norm.state_dict())


def test_heads_attend_the_same_in_another_basis(manager: Manager, tmp_path: Path) -> None:
    model = lively()
    tokens = torch.randn(6, 32, generator=torch.Generator().manual_seed(0))
    before, after = parts_of(model), parts_of(rewritten(manager, "change-basis", model, tmp_path))
    for one, other in zip(heads_of(before, tokens), heads_of(after, tokens), strict=True):
        torch.testing.assert_close(other, one, rtol=1e-4, atol=1e-4)
    size = len(before.query.weight) // before.n_heads
    for head in range(before.n_heads):  # what maps the old queries to the new ones is no rotation, but well-conditioned
        rows = slice(head * size, (head + 1) * size)
        turn = torch.linalg.lstsq(before.query.weight[rows].T, after.query.weight[rows].T).solution
        scales = torch.linalg.svdvals(turn)
        assert 0.49 < scales.min() < 0.9 < 1.1 < scales.max() < 2.01


def test_the_order_is_drawn_from_the_seed(manager: Manager, tmp_path: Path) -> None:
    (attack,) = manager.registry.attack_chain("reparametrize")
    model = lively()
    one, other = (attack.apply(model, toy_context(tmp_path, seed, roles=("attacker",))) for seed in "01")
    assert one.digest() != other.digest()


def test_a_change_of_the_function_is_an_error(
    manager: Manager, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from amb_attacks import invariance_torch

    def spoil(parts: BlockParts, generator: torch.Generator) -> None:
        parts.up.weight.mul_(1.01)

    monkeypatch.setattr(invariance_torch, "REWRITES", {**invariance_torch.REWRITES, "heads": spoil})
    with pytest.raises(amb.AmbError, match="moved by"):
        rewritten(manager, "permute-heads", lively(), tmp_path)


def test_a_network_without_blocks_or_biases_is_skipped(manager: Manager) -> None:
    (attack,) = manager.registry.attack_chain("fold-norms")
    assert "no plain transformer blocks" in attack.skip(amb.load_model("tiny/convnet"))
    owner = amb.load_model("tiny/owner")
    assert attack.skip(owner) is None
    owner.backbone.net.blocks[2].attn.qkv.bias = None
    assert "no bias" in attack.skip(owner)
    (permute,) = manager.registry.attack_chain("permute-heads")
    assert permute.skip(owner) is None
