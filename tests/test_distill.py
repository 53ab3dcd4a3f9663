"""Distillation: what the losses compute, what the thief uses of the model, and what the student is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import amb
from amb.testing import toy_context, toy_model
from amb.tuning import Schedule, tune
from amb_attacks.distill import Distill
from amb_attacks.distilling import class_loss, feature_loss, new_student

pytestmark = pytest.mark.usefixtures("manager")

QUICK = {"epochs": 2, "batch": 16, "n_images": 40, "lr": 1e-3}
DRAWN = torch.Generator().manual_seed(0)
STUDENT, MODEL = torch.randn(6, 4, generator=DRAWN) * 5, torch.randn(6, 4, generator=DRAWN) * 5
LABELS = torch.tensor([0, 1, 2, 3, 0, 1])


def distilled(folder: Path, model: amb.VisionModel | None = None, **params) -> amb.VisionModel:
    ctx = toy_context(folder, roles=("attacker",))
    return Distill(**{**QUICK, **params}).apply(model or toy_model(n_classes=3), ctx)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> amb.VisionModel:
    ctx = toy_context(tmp_path_factory.mktemp("trained"))
    return tune(toy_model(), ctx.split("owner"), "classification", Schedule(lr=1e-3, epochs=10, batch=16), ctx)


def chances(logits: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    powers = np.exp(logits.astype(np.float64) / temperature)
    return powers / powers.sum(axis=1, keepdims=True)


def cross_entropy(logits: torch.Tensor, labels: torch.Tensor) -> float:
    return float(np.mean([-np.log(row[label]) for row, label in zip(chances(logits.numpy()), labels, strict=True)]))


@pytest.mark.parametrize("temperature", [1.0, 3.0, 20.0])
def test_soft_loss_is_t_squared_times_the_divergence_from_the_models_chances(temperature: float) -> None:
    p, q = chances(MODEL.numpy(), temperature), chances(STUDENT.numpy(), temperature)
    expected = temperature**2 * np.mean(
        [sum(a * np.log(a / b) for a, b in zip(*rows, strict=True)) for rows in zip(p, q, strict=True)]
    )
    loss = class_loss(Distill(alpha=1, temperature=temperature), STUDENT, MODEL, LABELS)
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_alpha_weighs_the_model_against_the_true_labels() -> None:
    whole = class_loss(Distill(alpha=1), STUDENT, MODEL, LABELS).item()
    mixed = class_loss(Distill(alpha=0.7), STUDENT, MODEL, LABELS).item()
    assert mixed == pytest.approx(0.7 * whole + 0.3 * cross_entropy(STUDENT, LABELS), rel=1e-5)


@pytest.mark.parametrize(("target", "answer"), [("soft", MODEL), ("hard", MODEL.argmax(dim=1))])
def test_alpha_0_is_plain_cross_entropy(target, answer: torch.Tensor) -> None:
    loss = class_loss(Distill(target=target, alpha=0), STUDENT, answer, LABELS)
    assert loss.item() == pytest.approx(cross_entropy(STUDENT, LABELS), rel=1e-5)


def test_hard_loss_is_cross_entropy_with_the_models_classes() -> None:
    classes = MODEL.argmax(dim=1)
    loss = class_loss(Distill(target="hard", alpha=1), STUDENT, classes, LABELS)
    assert loss.item() == pytest.approx(cross_entropy(STUDENT, classes), rel=1e-5)


def test_feature_losses_are_squared_error_and_cosine() -> None:
    a, b = STUDENT.double().numpy(), MODEL.double().numpy()
    cosines = [x @ y / np.sqrt((x @ x) * (y @ y)) for x, y in zip(a, b, strict=True)]
    assert feature_loss(Distill(target="feature-mse"), STUDENT, MODEL).item() == pytest.approx(((a - b) ** 2).mean())
    loss = feature_loss(Distill(target="feature-cosine"), STUDENT, MODEL)
    assert loss.item() == pytest.approx(1 - np.mean(cosines), rel=1e-5)


@pytest.mark.parametrize("target", ["soft", "hard", "feature-mse", "feature-cosine"])
def test_the_model_sees_each_image_once(tmp_path: Path, target: str) -> None:
    model, seen = toy_model(n_classes=3), []
    embed = model.backbone.embed
    model.backbone.embed = lambda images: (seen.extend(map(hash_of, images)), embed(images))[1]  # type: ignore[method-assign]
    distilled(tmp_path, model, target=target, epochs=3)
    assert len(seen) == len(set(seen)) == QUICK["n_images"]


def hash_of(image: torch.Tensor) -> int:
    return hash(image.numpy().tobytes())


def test_training_starts_from_the_students_own_random_weights(tmp_path: Path) -> None:
    model = toy_model(n_classes=3)
    student = distilled(tmp_path, model, lr=1e-12, weight_decay=0)
    fresh = new_student(Distill(), toy_model(seed=9, n_classes=3), toy_context(tmp_path, roles=("attacker",)))
    torch.testing.assert_close(student.state_dict(), fresh.state_dict())
    near = [name for name, weight in model.state_dict().items() if torch.allclose(weight, fresh.state_dict()[name])]
    assert all("norm" in name or "bias" in name for name in near)  # which every network starts at 1 and 0


def test_without_weight_on_the_model_its_weights_do_not_matter(tmp_path: Path) -> None:
    one, other = (distilled(tmp_path, toy_model(seed=seed, n_classes=3), alpha=0) for seed in (1, 2))
    assert one.digest() == other.digest()


@pytest.mark.parametrize(("target", "same"), [("hard", True), ("soft", False)])
def test_only_hard_labels_are_blind_to_how_sure_the_model_is(tmp_path: Path, target: str, same: bool) -> None:
    model = toy_model(n_classes=3)
    surer = model.copy()
    with torch.no_grad():
        for weight in surer.heads["classification"].linear.parameters():
            weight.mul_(7)  # the largest logit stays the largest
    assert (
        distilled(tmp_path, model, target=target).digest() == distilled(tmp_path, surer, target=target).digest()
    ) is same


def test_pure_imitation_never_uses_the_true_labels(tmp_path: Path) -> None:
    ctx = toy_context(tmp_path, roles=("attacker",))
    attack, model = Distill(**QUICK, target="hard", alpha=1), toy_model(n_classes=3)
    honest = attack.apply(model, ctx)
    split = ctx.split("attacker")
    draw = split.batch
    split.batch = lambda rows: draw(rows)._replace(labels=torch.zeros(len(rows), dtype=torch.int64))  # type: ignore[method-assign]
    assert attack.apply(model, ctx).digest() == honest.digest()


def test_only_the_attackers_images_are_asked_for(tmp_path: Path) -> None:
    with pytest.raises(amb.AccessError, match="attacker split"):
        Distill(**QUICK).apply(toy_model(n_classes=3), toy_context(tmp_path, roles=("owner", "trigger", "test")))


@pytest.mark.parametrize("target", ["soft", "hard"])
def test_class_targets_are_skipped_without_a_classification_head(target) -> None:
    assert "no classification head" in (Distill(target=target).skip(toy_model()) or "")
    assert Distill(target=target).skip(toy_model(n_classes=3)) is None


@pytest.mark.parametrize("target", ["feature-mse", "feature-cosine"])
def test_feature_targets_need_no_head(tmp_path: Path, target) -> None:
    assert Distill(target=target).skip(toy_model()) is None
    assert not distilled(tmp_path, toy_model(), target=target).heads


def test_a_feature_student_gets_a_head_on_its_frozen_encoder_where_the_model_has_one(tmp_path: Path) -> None:
    bare = distilled(tmp_path, toy_model(), target="feature-mse")
    headed = distilled(tmp_path, toy_model(n_classes=3), target="feature-mse")
    torch.testing.assert_close(headed.backbone.state_dict(), bare.backbone.state_dict(), rtol=0, atol=0)
    assert headed.facts().n_classes == 3


@pytest.mark.parametrize("target", ["soft", "feature-mse", "feature-cosine"])
def test_a_student_may_be_another_network_of_another_width(tmp_path: Path, target: str) -> None:
    student = distilled(tmp_path, target=target, student="resnet10t", n_images=17)  # 17 = 16 + a batch of one
    assert student.backbone.image_size == 16
    assert student.facts().n_features == 512
    rebuilt = amb.build_model(student.architecture)
    assert set(rebuilt.backbone.state_dict()) == set(student.backbone.state_dict()), "a projection was left behind"


def test_a_transformer_student_is_built_at_the_models_image_size(tmp_path: Path) -> None:
    student = distilled(tmp_path, student="vit_tiny_patch16_224", epochs=1, n_images=2)
    assert student.backbone.image_size == 16


def test_an_unknown_student_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(amb.UnknownNameError, match="resnet10t") as caught:
        distilled(tmp_path, student="resnet10tt")
    assert "\n" not in str(caught.value)


def test_labels_of_other_classes_are_refused_unless_unused(tmp_path: Path) -> None:
    with pytest.raises(amb.BadParamsError, match="alpha=1"):
        distilled(tmp_path, toy_model(n_classes=5))
    assert distilled(tmp_path, toy_model(n_classes=5), alpha=1.0).facts().n_classes == 5


@pytest.mark.parametrize("target", ["soft", "hard"])
def test_the_student_learns_what_the_model_knows(tmp_path: Path, trained: amb.VisionModel, target: str) -> None:
    student = distilled(tmp_path, trained, target=target, alpha=1.0, epochs=20, n_images=128)
    images = toy_context(tmp_path).split("test").batch(range(128)).images
    assert (student.logits(images).argmax(dim=1) == trained.logits(images).argmax(dim=1)).float().mean() > 0.9


@pytest.mark.parametrize("target", ["feature-mse", "feature-cosine"])
def test_the_students_embeddings_come_to_resemble_the_models(
    tmp_path: Path, trained: amb.VisionModel, target: str
) -> None:
    fresh = new_student(Distill(target=target), trained, toy_context(tmp_path))
    student = distilled(tmp_path, trained, target=target, epochs=20, n_images=128)
    images = toy_context(tmp_path).split("test").batch(range(128)).images
    alike = [torch.cosine_similarity(m.features(images), trained.features(images)).mean() for m in (fresh, student)]
    assert alike[0] < 0.3
    assert alike[1] > 0.7
