"""Tuning: the learning rates of the schedules, what is trained, and what is left alone."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

import amb
from amb.testing import ToySuite, toy_context, toy_model
from amb.tuning import Schedule, Task, tune

QUICK = Schedule(lr=1e-3, epochs=1, batch=16, n_images=32)


def tuned(folder: Path, schedule: Schedule = QUICK, seed: str = "0", task: Task = "classification") -> amb.VisionModel:
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
    factors = {step: Schedule(shape).factor(step, 100) for step in expected}
    assert factors == pytest.approx(expected)


def test_every_step_uses_the_rate_of_its_place_in_the_schedule(tmp_path: Path, monkeypatch) -> None:
    rates = []
    step = torch.optim.AdamW.step

    def recorded(self, closure=None):
        rates.append([group["lr"] for group in self.param_groups])
        return step(self, closure)

    monkeypatch.setattr(torch.optim.AdamW, "step", recorded)
    tuned(tmp_path, Schedule("linear", lr=1e-4, head_lr=1e-2, epochs=2, batch=16, n_images=40))  # 2 x 3 steps
    assert rates == [pytest.approx([1e-4 * (1 - i / 6), 1e-2 * (1 - i / 6)]) for i in range(6)]


def test_one_step_is_adamws_on_the_cross_entropy(tmp_path: Path) -> None:
    schedule = Schedule(lr=1e-3, head_lr=1e-2, weight_decay=0.1, epochs=1, batch=32, n_images=32)
    ctx = toy_context(tmp_path, "0", roles=("owner",))
    start = tune(toy_model(), ctx.split("owner"), "classification", Schedule(lr=0, head_lr=0, epochs=1), ctx)
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
    result = tuned(tmp_path, Schedule(lr=1.0, epochs=1, batch=16, n_images=32, layers="head"))
    torch.testing.assert_close(result.backbone.state_dict(), toy_model().backbone.state_dict(), rtol=0, atol=0)


def test_all_layers_move_the_backbone(tmp_path: Path) -> None:
    moved = tuned(tmp_path).backbone.state_dict()
    assert not any(torch.equal(weight, moved[name]) for name, weight in toy_model().backbone.state_dict().items())


def test_result_can_be_trained_again(tmp_path: Path) -> None:
    result = tuned(tmp_path, Schedule(epochs=1, n_images=16, layers="head"))
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
    tune(toy_model(), split, "classification", Schedule(epochs=2, batch=16, n_images=40), ctx)
    assert seen == set(range(40))


def test_masks_that_are_not_there_are_said_to_be_missing(tmp_path: Path) -> None:
    ctx = toy_context(tmp_path, roles=("owner",))
    split = ctx.split("owner")
    split.n_mask_classes = 0
    with pytest.raises(amb.BadParamsError, match="no masks"):
        tune(toy_model(), split, "segmentation", QUICK, ctx)


def test_a_suite_makes_a_classifier_of_an_encoder(tmp_path: Path) -> None:
    model = ToySuite().classifier(toy_model(), toy_context(tmp_path, roles=("owner",)))
    assert model.facts().n_classes == 3
    assert math.isfinite(model.logits(torch.rand(2, 3, 16, 16)).sum().item())
