"""Tuning: the learning rates of the schedules, what is trained, and what is left alone."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

import amb
from amb.testing import toy_context, toy_model
from amb.training.config import Task, TrainingConfig
from amb.training.loop import fit, train_classifier, tune

QUICK = TrainingConfig(lr=1e-3, epochs=1, batch=16, n_images=32)


def tuned(
    folder: Path, schedule: TrainingConfig = QUICK, seed: str = "0", task: Task = "classification"
) -> amb.VisionModel:
    ctx = toy_context(folder, seed, roles=("owner",))
    return tune(toy_model(), ctx.split("owner"), task, schedule, ctx)


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ("constant", {0: 1.0, 50: 1.0, 99: 1.0}),
        ("linear", {0: 1.0, 50: 0.5, 99: 0.01}),
        ("cosine", {0: 0.1, 4: 0.5, 9: 1.0, 10: 1.0, 40: 0.75, 55: 0.5, 70: 0.25, 100: 0.0}),  # cos of 60, 90, 120 deg
    ],
)
def test_learning_rate_follows_the_closed_form(shape, expected: dict[int, float]) -> None:
    factors = {step: TrainingConfig(shape).factor(step, 100) for step in expected}
    assert factors == pytest.approx(expected)


def test_every_step_uses_the_rate_of_its_place_in_the_schedule(tmp_path: Path, monkeypatch) -> None:
    rates = []
    step = torch.optim.AdamW.step

    def recorded(self, closure=None):
        rates.append([group["lr"] for group in self.param_groups])
        return step(self, closure)

    monkeypatch.setattr(torch.optim.AdamW, "step", recorded)
    tuned(tmp_path, TrainingConfig("linear", lr=1e-4, head_lr=1e-2, epochs=2, batch=16, n_images=40))  # 2 x 3 steps
    assert rates == [pytest.approx([1e-4 * (1 - i / 6), 1e-2 * (1 - i / 6)]) for i in range(6)]


def test_one_step_is_adamws_on_the_cross_entropy(tmp_path: Path) -> None:
    schedule = TrainingConfig(lr=1e-3, head_lr=1e-2, weight_decay=0.1, epochs=1, batch=32, n_images=32)
    ctx = toy_context(tmp_path, "0", roles=("owner",))
    start = tune(toy_model(), ctx.split("owner"), "classification", TrainingConfig(lr=0, head_lr=0, epochs=1), ctx)
    after = tuned(tmp_path, schedule)
    batch = ctx.split("owner").batch(ctx_order(ctx, 32))
    with ctx.seeded("dropout"):
        chances = start.train().logits(batch.images).softmax(dim=1)
    (-chances[torch.arange(32), batch.labels].log().mean()).backward()
    for before, weight, rate in [
        (start.backbone.layers[0].linear1.weight, after.backbone.layers[0].linear1.weight, 1e-3),
        (start.heads["classification"].linear.weight, after.heads["classification"].linear.weight, 1e-2),
    ]:
        moved = before * (1 - rate * 0.1) - rate * before.grad / (before.grad.abs() + 1e-8)  # Adam's first step
        torch.testing.assert_close(weight, moved)


def ctx_order(ctx: amb.Context, n: int) -> list[int]:
    return torch.randperm(n, generator=ctx.generator("batches")).tolist()


def test_leaves_the_given_model_as_it_was(tmp_path: Path) -> None:
    owner = toy_model(n_classes=3)
    before = owner.digest()
    ctx = toy_context(tmp_path, roles=("owner",))
    result = tune(owner, ctx.split("owner"), "classification", QUICK, ctx)
    assert owner.digest() == before
    assert result.digest() != before


def test_head_only_leaves_the_backbone_untouched(tmp_path: Path) -> None:
    result = tuned(tmp_path, TrainingConfig(lr=1.0, epochs=1, batch=16, n_images=32, layers="head"))
    torch.testing.assert_close(result.backbone.state_dict(), toy_model().backbone.state_dict(), rtol=0, atol=0)


def test_all_layers_move_the_backbone(tmp_path: Path) -> None:
    moved = tuned(tmp_path).backbone.state_dict()
    assert not any(torch.equal(weight, moved[name]) for name, weight in toy_model().backbone.state_dict().items())


def test_result_can_be_trained_again(tmp_path: Path) -> None:
    result = tuned(tmp_path, TrainingConfig(epochs=1, n_images=16, layers="head"))
    assert not result.training
    assert all(weight.requires_grad and weight.grad is None for weight in result.parameters())


def test_same_seed_gives_the_same_weights_and_another_seed_others(tmp_path: Path) -> None:
    assert tuned(tmp_path).digest() == tuned(tmp_path).digest()
    assert tuned(tmp_path).digest() != tuned(tmp_path, seed="1").digest()


def test_reads_no_image_beyond_those_asked_for(tmp_path: Path) -> None:
    ctx = toy_context(tmp_path, roles=("owner",))
    split = ctx.split("owner")
    seen: set[int] = set()
    draw = split.batch
    split.batch = lambda rows: (seen.update(rows), draw(rows))[1]  # type: ignore[method-assign]
    tune(toy_model(), split, "classification", TrainingConfig(epochs=2, batch=16, n_images=40), ctx)
    assert seen == set(range(40))


def test_masks_that_are_not_there_are_said_to_be_missing(tmp_path: Path) -> None:
    ctx = toy_context(tmp_path, roles=("owner",))
    split = ctx.split("owner")
    split.n_mask_classes = 0
    with pytest.raises(amb.BadParamsError, match="no masks"):
        tune(toy_model(), split, "segmentation", QUICK, ctx)


def test_a_suite_makes_a_classifier_of_an_encoder(tmp_path: Path) -> None:
    model = train_classifier(toy_model(), toy_context(tmp_path, roles=("owner",)))
    assert model.facts().n_classes == 3
    assert math.isfinite(model.logits(torch.rand(2, 3, 16, 16)).sum().item())


def test_no_epochs_leave_every_weight(tmp_path: Path) -> None:
    model = toy_model(n_classes=3)
    ctx = toy_context(tmp_path, roles=("owner",))
    for shape in ("constant", "cosine", "linear"):
        result = tune(model, ctx.split("owner"), "classification", TrainingConfig(shape, epochs=0), ctx, head="keep")
        torch.testing.assert_close(result.state_dict(), model.state_dict(), rtol=0, atol=0)


def test_a_kept_head_is_trained_at_the_encoders_rate(tmp_path: Path, monkeypatch) -> None:
    rates = []
    step = torch.optim.AdamW.step
    monkeypatch.setattr(
        torch.optim.AdamW, "step", lambda self: (rates.append([g["lr"] for g in self.param_groups]), step(self))
    )
    ctx = toy_context(tmp_path, roles=("owner",))
    schedule = TrainingConfig(lr=1e-4, head_lr=0.5, epochs=1, n_images=64)
    tune(toy_model(n_classes=3), ctx.split("owner"), "classification", schedule, ctx, head="keep")
    assert rates == [[1e-4, 1e-4]]


def test_a_head_that_is_not_there_or_of_other_classes_cannot_be_kept(tmp_path: Path) -> None:
    ctx = toy_context(tmp_path, roles=("owner",))
    split = ctx.split("owner")
    with pytest.raises(amb.NoHeadError, match="no classification head"):
        tune(toy_model(), split, "classification", QUICK, ctx, head="keep")
    with pytest.raises(amb.BadParamsError, match="7 classes, these images have 3"):
        tune(toy_model(n_classes=7), split, "classification", QUICK, ctx, head="keep")


def test_a_kept_segmentation_head_goes_on_from_where_it_was(tmp_path: Path) -> None:
    ctx = toy_context(tmp_path, roles=("owner",))
    split = ctx.split("owner")
    first = tune(toy_model(), split, "segmentation", QUICK, ctx)
    again = tune(first, split, "segmentation", TrainingConfig(epochs=0), ctx, head="keep")
    torch.testing.assert_close(again.state_dict(), first.state_dict(), rtol=0, atol=0)


def test_fit_moves_what_requires_a_gradient_and_nothing_else(tmp_path: Path) -> None:
    ctx = toy_context(tmp_path, roles=("owner",))
    model, before = toy_model(n_classes=3), toy_model(n_classes=3).state_dict()
    model.backbone.requires_grad_(False)
    model.backbone.layers[2].linear1.requires_grad_(True)
    assert fit(model, ctx.split("owner"), "classification", QUICK, ctx) is model
    moved = {name for name, weight in model.state_dict().items() if not torch.equal(weight, before[name])}
    assert {name for name in moved if name.startswith("backbone")} == {
        "backbone.layers.2.linear1.weight",
        "backbone.layers.2.linear1.bias",
    }
    assert any(name.startswith("heads") for name in moved)


def test_trains_on_what_perturb_makes_of_a_batch(tmp_path: Path) -> None:
    ctx = toy_context(tmp_path, roles=("owner",))
    split, seen = ctx.split("owner"), []

    def upside_down(model, images, target):
        assert model.training
        seen.append((images, target))
        return images.flip(2)

    perturbed = tune(toy_model(), split, "classification", QUICK, ctx, perturb=upside_down)
    assert [len(images) for images, _ in seen] == [16, 16]
    draw = split.batch
    split.batch = lambda rows: (drawn := draw(rows))._replace(images=drawn.images.flip(2))  # type: ignore[method-assign]
    assert perturbed.digest() == tune(toy_model(), split, "classification", QUICK, ctx).digest()
