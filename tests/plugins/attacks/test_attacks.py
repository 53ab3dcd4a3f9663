"""Attacks beyond their contract: what exactly pruning zeroes and fine-tuning trains."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
import torch

import amb_attacks
from amb.plugin.manager import Manager
from amb.testing import toy_context, toy_model


def attack(manager: Manager, spec: str, folder: Path, **model: int):
    source = toy_model(**model)
    (component,) = manager.registry.attack_chain(spec)
    return source, component.apply(source, toy_context(folder, roles=("attacker",)))


def matrices(model) -> list[torch.Tensor]:
    """By their shape alone: linear maps have two axes, convolutions four, the toy's tokens and positions three."""
    return [weight for weight in model.backbone.parameters() if weight.ndim in (2, 4)]


@pytest.mark.parametrize("amount", [0.0, 0.2, 0.77])
def test_global_pruning_zeroes_exactly_the_smallest(manager: Manager, tmp_path: Path, amount: float) -> None:
    source, pruned = attack(manager, f"prune:amount={amount}", tmp_path)
    before = torch.cat([weight.flatten() for weight in matrices(source)])
    after = torch.cat([weight.flatten() for weight in matrices(pruned)])
    n_zero = round(amount * len(before))
    level = before.abs().sort().values[n_zero - 1] if n_zero else -1
    torch.testing.assert_close(after, torch.where(before.abs() > level, before, 0.0))


def test_layer_pruning_zeroes_the_share_in_every_layer(manager: Manager, tmp_path: Path) -> None:
    _, pruned = attack(manager, "prune:amount=0.5,scope=layer", tmp_path)
    for weight in matrices(pruned):
        assert (weight == 0).float().mean().item() == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("scope", ["global", "layer"])
def test_random_pruning_zeroes_the_share_and_nothing_else_whatever_the_size(
    manager: Manager, tmp_path: Path, scope: str
) -> None:
    source, pruned = attack(manager, f"prune:amount=0.6,criterion=random,scope={scope}", tmp_path)
    before, after = (torch.cat([weight.flatten() for weight in matrices(model)]) for model in (source, pruned))
    gone = after == 0
    assert int(gone.sum()) == pytest.approx(0.6 * len(before), abs=len(matrices(source)))
    torch.testing.assert_close(after[~gone], before[~gone], rtol=0, atol=0)
    large = before.abs() > before.abs().median()
    assert gone[large].float().mean().item() == pytest.approx(0.6, abs=0.03)  # some 18,000 draws: 0.004 of deviation
    if scope == "layer":
        for weight in matrices(pruned):
            assert (weight == 0).float().mean().item() == pytest.approx(0.6, abs=0.01)


@pytest.mark.parametrize(
    ("preset", "spec"),
    [
        ("prune80", "prune:amount=0.8"),
        ("prune-layer20", "prune:amount=0.2,scope=layer"),
        ("prune-random60", "prune:amount=0.6,criterion=random"),
    ],
)
def test_pruning_presets_say_what_they_do(manager: Manager, preset: str, spec: str) -> None:
    assert manager.registry.attack_chain(preset)[0].canonical() == spec


@pytest.mark.parametrize("preset", ["prune40", "prune-random40", "prune-layer40"])
def test_pruning_leaves_no_trace_of_the_mask(manager: Manager, tmp_path: Path, preset: str) -> None:
    source, pruned = attack(manager, preset, tmp_path)
    assert set(pruned.state_dict()) == set(source.state_dict())


def test_pruning_keeps_heads_and_norms(manager: Manager, tmp_path: Path) -> None:
    source, pruned = attack(manager, "prune80", tmp_path, n_classes=3)
    torch.testing.assert_close(pruned.heads.state_dict(), source.heads.state_dict())
    torch.testing.assert_close(pruned.backbone.norm.state_dict(), source.backbone.norm.state_dict())


def test_fine_tuning_learns_the_attackers_task(manager: Manager, tmp_path: Path) -> None:
    _, tuned = attack(manager, "finetune:epochs=10,batch=16,lr=1e-3", tmp_path)
    batch = toy_context(tmp_path).split("test").batch(range(64))
    assert (tuned.logits(batch.images).argmax(dim=1) == batch.labels).float().mean() > 0.9


def test_segmentation_learns_the_mask(manager: Manager, tmp_path: Path) -> None:
    _, tuned = attack(manager, "finetune-segmentation:epochs=10,batch=16,lr=1e-3", tmp_path)
    batch = toy_context(tmp_path).split("test").batch(range(64))
    guess = tuned.logits(batch.images, "segmentation").argmax(dim=1)
    assert (guess == batch.masks).float().mean() > 0.85
    assert list(tuned.heads) == ["segmentation"]


def test_head_only_fine_tuning_leaves_the_encoder(manager: Manager, tmp_path: Path) -> None:
    source, tuned = attack(manager, "finetune:layers=head,epochs=1", tmp_path)
    torch.testing.assert_close(tuned.backbone.state_dict(), source.backbone.state_dict())


def test_fine_tuning_starts_from_a_new_head(manager: Manager, tmp_path: Path) -> None:
    source, tuned = attack(manager, "finetune:epochs=1,batch=128,head_lr=1e-9,lr=0", tmp_path, n_classes=3)
    assert not torch.equal(source.heads["classification"].linear.weight, tuned.heads["classification"].linear.weight)


def test_fine_tuning_after_pruning_lets_weights_grow_again(manager: Manager, tmp_path: Path) -> None:
    source = toy_model(n_classes=3)
    prune, tune = manager.registry.attack_chain("prune60+ftal:epochs=1,lr=1e-3,batch=64")
    ctx = toy_context(tmp_path, roles=("attacker",))
    pruned = prune.apply(source, ctx)
    tuned = tune.apply(pruned, ctx)
    assert set(tuned.state_dict()) == set(source.state_dict())
    zeros = [sum(int((weight == 0).sum()) for weight in matrices(model)) for model in (pruned, tuned)]
    assert zeros[1] < 0.1 * zeros[0]


FILES = {path.stem: path for path in Path(amb_attacks.__file__).parent.glob("*.py")}


def imported_at_once(path: Path) -> set[str]:
    """What a file imports when it is imported itself: at its top, not inside functions or for types alone."""
    nodes = ast.parse(path.read_text(encoding="utf-8")).body
    plain = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    return plain | {str(node.module) for node in nodes if isinstance(node, ast.ImportFrom)}


def test_torch_work_lies_beside_the_parameters_it_belongs_to() -> None:
    heavy = {name for name, path in FILES.items() if "torch" in imported_at_once(path)}
    assert heavy == {name for name in FILES if name.endswith("_torch")}
    assert {name.removesuffix("_torch") for name in heavy} <= set(FILES) - heavy
    for name in set(FILES) - heavy:
        assert not any(module.endswith("_torch") for module in imported_at_once(FILES[name])), name
