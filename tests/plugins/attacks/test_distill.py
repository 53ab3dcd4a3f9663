"""Distillation: what the losses compute, what the thief sees and uses of the model, and what the student is."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch

import amb
from amb.testing import ToySplit, toy_context, toy_model
from amb.training.config import TrainingConfig
from amb.training.loop import tune
from amb_attacks.distill import Distill, Target
from amb_attacks.distill_torch import (
    Surrogates,
    augmented,
    class_loss,
    contrastive_loss,
    feature_loss,
    new_student,
    outputs,
    resampled,
    token_loss,
)

pytestmark = pytest.mark.usefixtures("manager")

QUICK = {"epochs": 2, "batch": 16, "n_images": 40, "lr": 1e-3}
DRAWN = torch.Generator().manual_seed(0)
STUDENT, MODEL = torch.randn(6, 4, generator=DRAWN) * 5, torch.randn(6, 4, generator=DRAWN) * 5
LABELS = torch.tensor([0, 1, 2, 3, 0, 1])
TARGETS = get_args(Target)
BY_CLASS = ("soft", "hard")
PRESETS = sorted(Distill.presets)


def distilled(folder: Path, model: amb.VisionModel | None = None, **params) -> amb.VisionModel:
    ctx = toy_context(folder, roles=("attacker",))
    return Distill(**{**QUICK, **params}).apply(model or toy_model(n_classes=3), ctx)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> amb.VisionModel:
    ctx = toy_context(tmp_path_factory.mktemp("trained"))
    return tune(toy_model(), ctx.split("owner"), "classification", TrainingConfig(lr=1e-3, epochs=10, batch=16), ctx)


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


def test_contrastive_loss_is_cont_steals_with_every_term_written_out() -> None:
    s, m = (rows.double().numpy() / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (STUDENT, MODEL))
    losses = []
    for i in range(len(s)):
        between = sum(math.exp(s[i] @ m[k] / 0.5) for k in range(len(s)))
        within = sum(math.exp(s[i] @ s[k] / 0.5) for k in range(len(s)) if k != i)
        losses.append(-math.log(math.exp(s[i] @ m[i] / 0.5) / (between + within)))
    assert contrastive_loss(3 * STUDENT, MODEL, 0.5).item() == pytest.approx(np.mean(losses), rel=1e-5)


UP = np.array([[1, 0], [0.75, 0.25], [0.25, 0.75], [0, 1]])  # a side of 2 places seen as 4, and of 4 as 2
DOWN = np.array([[3, 3, 1, 0], [0, 1, 3, 3]]) / 7


@pytest.mark.parametrize("weights", [UP, DOWN])
def test_tokens_are_interpolated_row_by_row_and_column_by_column(weights: np.ndarray) -> None:
    new_side, side = weights.shape
    patches = torch.randn(3, side**2, 5, generator=torch.Generator().manual_seed(1))
    expected = np.kron(weights, weights) @ patches.double().numpy()
    np.testing.assert_allclose(resampled(patches, new_side**2).numpy(), expected, atol=1e-5)


@pytest.mark.parametrize("has_cls", [True, False])
def test_token_losses_go_over_the_patches_and_the_students_cls(has_cls: bool) -> None:
    drawn = torch.Generator().manual_seed(2)
    ours, theirs = torch.randn(3, 5, 8, generator=drawn), torch.randn(3, 17, 8, generator=drawn)
    patches = np.kron(UP, UP) @ ours[:, 1:].double().numpy()
    a = np.concatenate([ours[:, :1].numpy(), patches], axis=1)[:, 0 if has_cls else 1 :]
    b = theirs.numpy()[:, 0 if has_cls else 1 :]
    loss = token_loss(Distill(target="token-mse"), ours, theirs, has_cls)
    assert loss.item() == pytest.approx(((a - b) ** 2).mean(), rel=1e-5)
    cosines = (a * b).sum(2) / np.sqrt((a**2).sum(2) * (b**2).sum(2))
    loss = token_loss(Distill(target="token-cosine"), ours, theirs, has_cls)
    assert loss.item() == pytest.approx(1 - cosines.mean(), rel=1e-5)


def test_tokens_leave_out_registers_and_the_mean_stands_for_a_missing_cls() -> None:
    images = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        vit, convnet = toy_model(registers=3), convnet_model()
        tokens, found = vit.tokens(images), outputs(vit, images)
        torch.testing.assert_close(found, torch.stack([tokens[:, i] for i in (0, *range(4, 20))], dim=1))
        patches, found = convnet.tokens(images), outputs(convnet, images)
    torch.testing.assert_close(found[:, 0], patches.sum(dim=1) / patches.shape[1])
    torch.testing.assert_close(found[:, 1:], patches)


def convnet_model() -> amb.VisionModel:
    options = {"channels": [8, 8, 16, 16], "output_stride": 8}
    architecture = {"loader": "timm", "name": "resnet10t", "options": options, "image_size": 16}
    return amb.build_model(architecture).eval()


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> dict[bool, list[torch.Tensor]]:
    """The images that were shown: under True to the student in training, under False to the model."""
    seen: dict[bool, list[torch.Tensor]] = {True: [], False: []}
    prepare = amb.VisionModel.prepare

    def record(model: amb.VisionModel, images: torch.Tensor) -> torch.Tensor:
        if len(images) > 1 or images.any():  # `facts` shows a blank image
            seen[model.training].extend(images)
        return prepare(model, images)

    monkeypatch.setattr(amb.VisionModel, "prepare", record)
    return seen


def hashes(images: list[torch.Tensor]) -> list[int]:
    return [hash(image.numpy().tobytes()) for image in images]


@pytest.mark.parametrize("target", ["soft", "hard", "feature-mse", "feature-cosine", "contrastive"])
def test_the_model_sees_each_image_once(tmp_path: Path, shown, target: str) -> None:
    ctx = toy_context(tmp_path, roles=("attacker",))
    Distill(**{**QUICK, "target": target, "epochs": 3}).apply(headless(target), ctx)
    seen = hashes(shown[False])
    assert len(seen) == len(set(seen)) == QUICK["n_images"] == ctx.notes["queries"]


def headless(target: str) -> amb.VisionModel:
    """A model without a head that the student would have to be given as well."""
    return toy_model(n_classes=3 if target in BY_CLASS else 0)


@pytest.mark.parametrize(("target", "n_first"), [("soft", 0), ("feature-mse", 1)])  # one shows the embedding's width
def test_an_augmented_image_is_new_at_every_step_and_the_same_to_both(
    tmp_path: Path, shown, target: str, n_first: int
) -> None:
    distilled(tmp_path, headless(target), target=target, augment=True)
    model, student = hashes(shown[False])[n_first:], hashes(shown[True])
    assert model == student
    assert len(set(student)) == 2 * 32  # two epochs of two whole batches
    assert not set(student) & set(hashes(list(ToySplit("attacker").batch(range(40)).images)))


def test_contrastive_views_of_model_and_student_differ(tmp_path: Path, shown) -> None:
    distilled(tmp_path, toy_model(), target="contrastive", augment=True)
    assert len(shown[True]) == len(shown[False]) - 1 == 2 * 32
    assert not set(hashes(shown[True])) & set(hashes(shown[False]))


def test_a_crop_zooms_in_on_a_part_of_the_image() -> None:
    ramp = ((torch.arange(16) + 0.5) / 16).expand(1, 3, 16, 16)
    crops = torch.cat([augmented(ramp * 0.2 + 0.4, torch.Generator().manual_seed(seed)) for seed in range(50)])
    assert crops.std(dim=2).max() < 1e-6, "a crop is neither turned nor sheared"
    steps = crops[:, :, 0].diff(dim=2)[:, :, 2:-2]
    inside = (crops[:, :, 0].amin(dim=2) > 0) & (crops[:, :, 0].amax(dim=2) < 1)
    torch.testing.assert_close(steps[inside], steps[inside].mean(dim=1, keepdim=True).expand(-1, 11), atol=1e-5, rtol=0)
    slope = steps[inside].mean(dim=1) * 16 / 0.2  # zoom x contrast, and never mirrored
    assert slope.min() > 0.6 * 0.6 - 1e-3
    assert slope.max() < 1.4 + 1e-3
    assert slope.max() > 1.5 * slope.min(), "crops differ"


def test_augmented_images_are_drawn_one_by_one_and_the_original_stays() -> None:
    image = ToySplit("attacker").batch([0]).images
    images = image.repeat(8, 1, 1, 1)
    drawn = augmented(images, torch.Generator().manual_seed(0))
    assert len(set(hashes(list(drawn)))) == 8
    assert drawn.min() >= 0
    assert drawn.max() <= 1
    torch.testing.assert_close(images, image.repeat(8, 1, 1, 1), rtol=0, atol=0)
    torch.testing.assert_close(augmented(images, torch.Generator().manual_seed(0)), drawn, rtol=0, atol=0)


def test_a_surrogate_is_two_images_mixed_cut_up_and_recoloured() -> None:
    split = ToySplit("attacker")
    made = Surrogates(split, 12, torch.Generator().manual_seed(0))
    own, found = split.batch(range(12)).images.numpy(), made.batch(range(12)).images.numpy()
    assert not any(made.partners == torch.arange(12))
    assert sorted(made.partners.tolist()) == list(range(12))
    for i in range(12):
        share = made.shares[i].item()
        mixed = share * own[i] + (1 - share) * own[made.partners[i]]
        for place, piece in enumerate(made.pieces[i].tolist()):
            new, old = cut(found[i], place), cut(mixed, piece)
            for channel, source in enumerate(made.channels[i].tolist()):
                expected = 1 - old[source] if made.inverted[i] else old[source]
                np.testing.assert_allclose(new[channel], expected, atol=1e-6)


def cut(image: np.ndarray, place: int) -> np.ndarray:
    """One of the 16 pieces of 4 x 4 pixels, counted row by row."""
    top, left = 4 * (place // 4), 4 * (place % 4)
    return image[:, top : top + 4, left : left + 4]


def test_a_surrogate_is_the_same_whenever_it_is_drawn_and_has_no_label() -> None:
    made = Surrogates(ToySplit("attacker"), 12, torch.Generator().manual_seed(0))
    together, alone = made.batch([3, 7, 3]), made.batch([7])
    torch.testing.assert_close(together.images[1:2], alone.images, rtol=0, atol=0)
    torch.testing.assert_close(together.images[0], together.images[2], rtol=0, atol=0)
    assert (together.labels == -1).all()
    assert len(made) == 12


def test_surrogates_of_images_that_cannot_be_cut_evenly_lose_the_rest() -> None:
    class Odd(ToySplit):
        def batch(self, indices):
            batch = super().batch(indices)
            return batch._replace(images=batch.images[..., :15, :15])

    assert Surrogates(Odd("attacker"), 4, torch.Generator()).batch([0, 1]).images.shape == (2, 3, 12, 12)


@pytest.mark.parametrize("target", ["soft", "hard", "feature-cosine", "contrastive", "token-mse"])
def test_with_surrogates_nobody_is_shown_an_own_image_and_labels_do_not_matter(
    tmp_path: Path, shown, target: str
) -> None:
    ctx = toy_context(tmp_path, roles=("attacker",))
    attack = Distill(**QUICK, target=target, alpha=1.0, images="surrogate")
    honest = attack.apply(toy_model(n_classes=3), ctx)
    assert not set(hashes([*shown[True], *shown[False]])) & set(
        hashes(list(ctx.split("attacker").batch(range(128)).images))
    )
    relabel(ctx.split("attacker"))
    assert attack.apply(toy_model(n_classes=3), ctx).digest() == honest.digest()
    assert ("classification" in honest.heads) is (target in BY_CLASS)


def relabel(split: Any) -> None:
    draw = split.batch
    split.batch = lambda rows: draw(rows)._replace(labels=torch.zeros(len(rows), dtype=torch.int64))


def test_surrogates_with_a_weight_on_labels_are_refused() -> None:
    with pytest.raises(amb.BadParamsError, match="alpha=1") as caught:
        Distill.create({"images": "surrogate"})
    assert "\n" not in str(caught.value)
    assert Distill.create({"images": "surrogate", "target": "token-mse"}).alpha == 0.9  # which it does not use


@pytest.mark.parametrize("target", TARGETS)
def test_training_starts_from_the_students_own_random_weights(tmp_path: Path, target: str) -> None:
    model = headless(target)
    student = distilled(tmp_path, model, target=target, lr=1e-12, weight_decay=0)
    other = toy_model(seed=9, n_classes=3)
    fresh = new_student(Distill(target=target), other, toy_context(tmp_path, roles=("attacker",)))
    torch.testing.assert_close(student.state_dict(), fresh.state_dict())
    near = [name for name, weight in model.state_dict().items() if torch.allclose(weight, fresh.state_dict()[name])]
    assert all("norm" in name or "bias" in name for name in near)  # which every network starts at 1 and 0


@pytest.mark.parametrize("target", TARGETS)
def test_the_student_shares_no_memory_with_the_model(tmp_path: Path, target: str) -> None:
    model = toy_model(n_classes=3)
    student = distilled(tmp_path, model, target=target)
    places = [{weight.data_ptr() for weight in each.state_dict().values()} for each in (model, student)]
    assert not places[0] & places[1]


def test_the_same_architecture_is_the_published_one_without_what_was_done_to_the_copy(tmp_path: Path) -> None:
    model = toy_model(n_classes=3)
    architecture = dict(model.architecture)
    model.architecture = {**architecture, "edits": [{"name": "no-such-edit", "parameters": {}}]}
    model.input_filters.append(lambda images: images * 0)
    student = distilled(tmp_path, model)
    assert student.architecture == architecture
    assert not student.input_filters
    assert {len(each.state_dict()) for each in (student, toy_model(n_classes=3))} == {len(model.state_dict())}


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
    relabel(ctx.split("attacker"))
    assert attack.apply(model, ctx).digest() == honest.digest()


class Watched(ToySplit):
    """The attacker's images, with a record of which were drawn."""

    def __init__(self) -> None:
        super().__init__("attacker")
        self.drawn: set[int] = set()

    def batch(self, indices):
        self.drawn |= {int(index) for index in indices}
        return super().batch(indices)


class OnlyTheAttackers(Mapping[Any, Any]):
    """All four splits by name, three of which nobody may touch."""

    def __init__(self) -> None:
        self.attacker = Watched()

    def __getitem__(self, role: Any) -> ToySplit:
        if role != "attacker":
            raise AssertionError(f"the {role} split was touched")
        return self.attacker

    def __contains__(self, role: object) -> bool:
        return role in ("owner", "attacker", "trigger", "test")

    def __iter__(self) -> Iterator[Any]:
        return iter(("owner", "attacker", "trigger", "test"))

    def __len__(self) -> int:
        return 4


@pytest.mark.parametrize("preset", PRESETS)
def test_only_the_first_of_the_attackers_images_are_touched(tmp_path: Path, preset: str) -> None:
    splits = OnlyTheAttackers()
    ctx = amb.Context(("0",), splits, tmp_path)
    attack = Distill(**{**Distill.presets[preset], "epochs": 1, "n_images": 40, "batch": 8})
    attack.apply(toy_model(n_classes=3), ctx)
    assert splits.attacker.drawn == set(range(40))


@pytest.mark.parametrize("preset", PRESETS)
def test_without_the_attackers_images_there_is_no_distillation(tmp_path: Path, preset: str) -> None:
    ctx = toy_context(tmp_path, roles=("owner", "trigger", "test"))
    with pytest.raises(amb.AccessError, match="attacker split"):
        Distill(**Distill.presets[preset]).apply(toy_model(n_classes=3), ctx)


@pytest.mark.parametrize("target", ["soft", "hard"])
def test_class_targets_are_skipped_without_a_classification_head(target) -> None:
    assert "no classification head" in (Distill(target=target).skip(toy_model()) or "")
    assert Distill(target=target).skip(toy_model(n_classes=3)) is None


@pytest.mark.parametrize("target", [target for target in TARGETS if target not in BY_CLASS])
def test_feature_targets_need_no_head(tmp_path: Path, target) -> None:
    assert Distill(target=target).skip(toy_model()) is None
    assert not distilled(tmp_path, toy_model(), target=target).heads


def test_a_feature_student_gets_a_head_on_its_frozen_encoder_where_the_model_has_one(tmp_path: Path) -> None:
    bare = distilled(tmp_path, toy_model(), target="feature-mse")
    headed = distilled(tmp_path, toy_model(n_classes=3), target="feature-mse")
    torch.testing.assert_close(headed.backbone.state_dict(), bare.backbone.state_dict(), rtol=0, atol=0)
    assert headed.facts().n_classes == 3


@pytest.mark.parametrize("target", ["soft", "feature-cosine", "contrastive", "token-mse"])
def test_a_student_may_be_another_network_of_another_width(tmp_path: Path, target: str) -> None:
    student = distilled(tmp_path, target=target, student="resnet10t", n_images=17)  # 17 = 16 + a batch of one
    assert student.backbone.image_size == 16
    assert student.facts().n_features == 512
    rebuilt = amb.build_model(student.architecture)
    assert set(rebuilt.backbone.state_dict()) == set(student.backbone.state_dict()), "a projection was left behind"


@pytest.mark.parametrize("target", ["feature-mse", "token-cosine"])
def test_a_transformer_may_imitate_a_convnet(tmp_path: Path, target: str) -> None:
    ctx = toy_context(tmp_path, roles=("attacker",))
    attack = Distill(target=target, student="vit_tiny_patch16_224", epochs=1, n_images=8, batch=8, lr=1e-3)
    fresh, student = new_student(attack, convnet_model(), ctx), attack.apply(convnet_model(), ctx)
    assert student.facts().n_features == 192
    assert not torch.equal(student.backbone.net.cls_token, fresh.backbone.net.cls_token), (
        "its embedding was not trained"
    )


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


@pytest.mark.parametrize("target", ["feature-mse", "feature-cosine", "contrastive", "token-mse", "token-cosine"])
def test_the_students_embeddings_come_to_resemble_the_models(
    tmp_path: Path, trained: amb.VisionModel, target: str
) -> None:
    fresh = new_student(Distill(target=target), trained, toy_context(tmp_path))
    student = distilled(tmp_path, trained, target=target, epochs=12, n_images=128)
    images = toy_context(tmp_path).split("test").batch(range(128)).images
    alike = [torch.cosine_similarity(m.features(images), trained.features(images)).mean() for m in (fresh, student)]
    assert alike[0] < 0.3
    assert alike[1] > 0.7


def test_only_a_student_of_tokens_resembles_the_model_place_by_place(tmp_path: Path, trained: amb.VisionModel) -> None:
    images = toy_context(tmp_path).split("test").batch(range(64)).images
    alike = {}
    for target in ("feature-mse", "token-mse"):
        student = distilled(tmp_path, trained, target=target, epochs=10, n_images=128)
        with torch.no_grad():
            ours, theirs = (model.tokens(images)[:, 1:] for model in (student, trained))
        alike[target] = torch.cosine_similarity(ours, theirs, dim=2).mean()
    assert alike["token-mse"] > 0.8 > alike["feature-mse"] + 0.2
