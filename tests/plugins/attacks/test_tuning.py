"""Attacks that train: which head and layers, low-rank changes and their merge, adversarial images."""

from __future__ import annotations

import re
from itertools import product
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import amb
from amb.plugin.manager import Manager
from amb.sweeps.reader import read_sweep
from amb.testing import toy_context, toy_model
from amb_attacks.adversarial_torch import Ascent

SIZES = {"img_size": 16, "patch_size": 4, "embed_dim": 32, "depth": 2, "num_heads": 4}
QUICK = "epochs=1,batch=16,n_images=32"


def transformer() -> amb.VisionModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return amb.build_model({"loader": "timm", "name": "vit_tiny_patch16_224", "options": SIZES}).eval()


def attack(manager: Manager, spec: str, model: amb.VisionModel, folder: Path) -> amb.VisionModel:
    (component,) = manager.registry.attack_chain(spec)
    assert component.skip(model) is None
    return component.apply(model, toy_context(folder, roles=("attacker",)))


def same(left: torch.nn.Module, right: torch.nn.Module) -> bool:
    return all(torch.equal(*pair) for pair in zip(left.state_dict().values(), right.state_dict().values(), strict=True))


RATES = ["lr", "head_lr", "weight_decay", "epochs", "batch", "n_images"]


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("finetune", ["task", "schedule", "layers", "head", *RATES]),
        ("adversarial", ["task", "schedule", "layers", "head", *RATES, "epsilon", "steps", "step_size"]),
        ("lora", ["rank", "alpha", "schedule", *RATES]),
        ("cut-rear", ["n", "schedule", *RATES]),
    ],
)
def test_spec_texts_name_an_attacks_own_parameters_first(manager: Manager, name: str, parameters: list[str]) -> None:
    """Seeds come from these texts, so another order would be another result."""
    (component,) = manager.registry.attack_chain(f"{name}:schedule=linear,n_images=7,batch=9,epochs=3,lr=0.25")
    assert [key for key, _ in component] == parameters == list(type(component).model_json_schema()["properties"])
    assert component.canonical() == f"{name}:schedule=linear,lr=0.25,epochs=3,batch=9,n_images=7"
    config = component.training_config()
    assert (config.lr_schedule, config.lr, config.epochs, config.batch, config.n_images) == ("linear", 0.25, 3, 9, 7)


@pytest.mark.parametrize(
    ("preset", "keeps_head", "moves_encoder"),
    [("ftll", True, False), ("ftal", True, True), ("rtll", False, False), ("rtal", False, True)],
)
def test_the_four_classic_forms(
    manager: Manager, tmp_path: Path, preset: str, keeps_head: bool, moves_encoder: bool
) -> None:
    model = toy_model(n_classes=3)
    start = attack(manager, f"{preset}:epochs=0", model, tmp_path)
    assert same(start.heads, model.heads) == keeps_head
    assert same(start.backbone, model.backbone)
    after = attack(manager, f"{preset}:{QUICK}", model, tmp_path)
    assert not same(after.heads, start.heads)
    assert same(after.backbone, model.backbone) != moves_encoder


def test_fine_tuning_at_one_rate_is_plain_adamw(manager: Manager, tmp_path: Path) -> None:
    model = toy_model(n_classes=3)
    model.heads["classification"].dropout.p = 0.0
    tuned = attack(manager, "ftal:epochs=1,batch=32,n_images=32,lr=1e-3,weight_decay=0.1", model, tmp_path)
    twin = model.copy().train()
    batch = toy_context(tmp_path).split("attacker").batch(range(32))
    optimizer = torch.optim.AdamW(twin.parameters(), lr=1e-3, weight_decay=0.1)
    F.cross_entropy(twin.logits(batch.images), batch.labels).backward()
    optimizer.step()
    off = torch.cat([(a - b).abs().flatten() for a, b in zip(tuned.parameters(), twin.parameters(), strict=True)])
    assert (off < 1e-5).float().mean() > 0.98  # Adam's first step is the gradient's sign: noise around 0 may flip it


def test_a_linear_probe_learns_on_a_frozen_encoder(manager: Manager, tmp_path: Path) -> None:
    model = toy_model()
    probe = attack(manager, "linear-probe:batch=16", model, tmp_path)
    assert same(probe.backbone, model.backbone)
    batch = toy_context(tmp_path).split("test").batch(range(64))
    assert (probe.logits(batch.images).argmax(dim=1) == batch.labels).float().mean() > 0.8


def test_a_head_can_only_be_kept_where_there_is_one(manager: Manager, tmp_path: Path) -> None:
    (ftal,) = manager.registry.attack_chain("ftal")
    assert "no classification head" in ftal.skip(toy_model())
    (segmentation,) = manager.registry.attack_chain("finetune:head=keep,task=segmentation")
    assert "no segmentation head" in segmentation.skip(toy_model(n_classes=3))
    with pytest.raises(amb.BadParamsError, match="5 classes"):
        ftal.apply(toy_model(n_classes=5), toy_context(tmp_path))


def test_a_sweep_file_spans_rate_decay_and_length(manager: Manager) -> None:
    axes = "{lr: [1e-5, 1e-4], weight_decay: [0, 0.1], epochs: [1, 5]}"
    Path("s.yaml").write_text(f"suites: toy\nmethods: ipguard\nattacks: [finetune: {axes}, ftal: {axes}]\n")
    specs = read_sweep(Path("s.yaml"), manager.registry).attacks
    chains = [manager.registry.attack_chain(spec) for spec in specs]
    expected = list(product(("new", "keep"), (1e-5, 1e-4), (0.0, 0.1), (1, 5)))
    assert [(each.head, each.lr, each.weight_decay, each.epochs) for (each,) in chains] == expected


# Low-rank changes


def test_low_rank_changes_are_of_low_rank_and_the_rest_is_untouched(manager: Manager, tmp_path: Path) -> None:
    model = transformer()
    tuned = attack(manager, f"lora:rank=2,lr=0.02,{QUICK}", model, tmp_path)
    before, after = model.backbone.state_dict(), tuned.backbone.state_dict()
    assert set(before) == set(after)
    assert tuned.architecture == model.architecture
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {
        f"net.blocks.{block}.{layer}.weight" for block in range(2) for layer in ("attn.qkv", "mlp.fc1", "mlp.fc2")
    }
    for name in changed:  # a full change of 32 columns would have rank 32
        assert 1 <= torch.linalg.matrix_rank(after[name] - before[name], rtol=1e-3) <= 2


def test_low_rank_changes_learn_the_task(manager: Manager, tmp_path: Path) -> None:
    tuned = attack(manager, "lora:rank=4,lr=0.01,epochs=10,batch=16", transformer(), tmp_path)
    batch = toy_context(tmp_path).split("test").batch(range(64))
    assert (tuned.logits(batch.images).argmax(dim=1) == batch.labels).float().mean() > 0.9


def test_the_merged_model_is_plain_and_trainable(manager: Manager, tmp_path: Path) -> None:
    tuned = attack(manager, f"lora:{QUICK}", transformer(), tmp_path)
    assert not any(re.search("lora|peft", type(layer).__module__) for layer in tuned.modules())
    assert all(weight.requires_grad for weight in tuned.parameters())
    assert not tuned.training
    assert attack(manager, f"ftal:{QUICK}", tuned, tmp_path).n_blocks == 2


def test_low_rank_changes_skip_what_has_no_blocks(manager: Manager) -> None:
    (lora,) = manager.registry.attack_chain("lora")
    convnet = amb.build_model({"loader": "timm", "name": "resnet10t", "options": {}, "image_size": 32})
    assert "no transformer blocks" in lora.skip(convnet)


# Adversarial images


def ascent(epsilon: float = 0.05, steps: int = 7, step_size: float = 0.01) -> Ascent:
    return Ascent(epsilon, steps, step_size, "classification", torch.Generator().manual_seed(0))


def loss(model: amb.VisionModel, images: Tensor, target: Tensor) -> Tensor:
    return F.cross_entropy(model.logits(images), target, reduction="none").detach()


def test_adversarial_images_stay_close_and_raise_the_loss(tmp_path: Path) -> None:
    model = toy_model(n_classes=3)
    batch = toy_context(tmp_path).split("attacker").batch(range(32))
    clean = batch.images.clone()
    made = ascent()(model, batch.images, batch.labels)
    assert torch.equal(batch.images, clean)
    assert (made - clean).abs().max() <= 0.05 + 1e-6
    assert made.min() >= 0
    assert made.max() <= 1
    raised = loss(model, made, batch.labels) - loss(model, clean, batch.labels)
    noise = (clean + 0.05 * torch.randn(clean.shape, generator=torch.Generator().manual_seed(1)).sign()).clamp(0, 1)
    by_noise = loss(model, noise, batch.labels) - loss(model, clean, batch.labels)
    assert (raised > 0).all()
    assert raised.mean() > 3 * by_noise.abs().mean()
    assert all(weight.grad is None for weight in model.parameters())


def test_ascent_finds_the_best_corner_of_a_linear_model() -> None:
    weight = torch.randn(2, 3 * 8 * 8, generator=torch.Generator().manual_seed(2))
    linear = SimpleNamespace(device="cpu", logits=lambda images, task: images.flatten(1) @ weight.T)
    images = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(3))
    target = torch.tensor([0, 1, 0, 1])
    made = ascent(epsilon=0.1, steps=25, step_size=0.01)(linear, images, target)  # 0.25 > 0.2, the ball's width
    slope = torch.stack([weight[1] - weight[0], weight[0] - weight[1]])[target].view_as(images)
    torch.testing.assert_close(made, (images + 0.1 * slope.sign()).clamp(0, 1))


def test_adversarial_training_makes_the_model_robust(manager: Manager, tmp_path: Path) -> None:
    how = "epochs=5,batch=16,lr=1e-3,n_images=96"
    plain = attack(manager, f"finetune:{how}", toy_model(), tmp_path)
    robust = attack(manager, f"adversarial:{how},epsilon=0.15,steps=4,step_size=0.06", toy_model(), tmp_path)
    batch = toy_context(tmp_path).split("test").batch(range(64))

    def harmed(model: amb.VisionModel) -> float:
        images = ascent(0.15, 10, 0.03)(model, batch.images, batch.labels)
        return (model.logits(images).argmax(dim=1) == batch.labels).float().mean().item()

    assert harmed(robust) > harmed(plain) + 0.1
