"""Filters of a deployed model: pixels against Pillow and scipy, one image against its batch, answers that are rounded."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter

import amb
from amb.errors import AmbError
from amb.plugin.manager import Manager
from amb.testing import toy_context, toy_model

IMAGES = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))
INPUT = ["input-jpeg", "input-jpeg30", "input-blur", "input-noise", "input-noise10", "input-flip", "input-levels"]


def deployed(manager: Manager, spec: str, folder: Path, seed: str = "0", n_classes: int = 3) -> amb.VisionModel:
    model = toy_model(n_classes=n_classes)
    for attack in manager.registry.attack_chain(spec):
        model = attack.apply(model, toy_context(folder, seed, roles=("attacker",)))
    return model


def filtered(manager: Manager, spec: str, folder: Path, images: torch.Tensor, seed: str = "0") -> torch.Tensor:
    for each in deployed(manager, spec, folder, seed).input_filters:
        images = each(images)
    return images


@pytest.mark.parametrize("spec", INPUT)
@pytest.mark.parametrize("shape", [(16, 16), (40, 24), (5, 7)])
def test_images_stay_images(manager: Manager, tmp_path: Path, spec: str, shape: tuple[int, int]) -> None:
    images = torch.rand(2, 3, *shape, generator=torch.Generator().manual_seed(1))
    after = filtered(manager, spec, tmp_path, images)
    assert (after.shape, after.dtype) == (images.shape, torch.float32)
    assert 0 <= after.min() <= after.max() <= 1
    assert not torch.equal(after, images)


@pytest.mark.parametrize("spec", [*INPUT, "output-round", "input-jpeg+input-noise+output-round"])
def test_one_image_alone_gets_the_answer_it_gets_in_a_batch(manager: Manager, tmp_path: Path, spec: str) -> None:
    model = deployed(manager, spec, tmp_path)
    with torch.no_grad():
        together, alone = model.features(IMAGES), torch.cat([model.features(image[None]) for image in IMAGES])
        again = model.features(IMAGES.flip(0)).flip(0)
    torch.testing.assert_close(alone, together, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(again, together, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("spec", [*INPUT, "output-round"])
def test_filters_act_on_answers_and_not_in_training(manager: Manager, tmp_path: Path, spec: str) -> None:
    model, bare = deployed(manager, spec, tmp_path), toy_model(n_classes=3)
    with torch.no_grad():
        assert not torch.equal(model.features(IMAGES), bare.features(IMAGES))
        torch.testing.assert_close(model.train().features(IMAGES), bare.train().features(IMAGES), rtol=0, atol=0)


@pytest.mark.parametrize("quality", [75, 30])
def test_jpeg_is_that_of_pillow(manager: Manager, tmp_path: Path, quality: int) -> None:
    smooth = torch.nn.functional.interpolate(IMAGES[:, :, :4, :4], size=(32, 32), mode="bilinear")
    after = filtered(manager, f"input-jpeg:quality={quality}", tmp_path, smooth)
    for image, found in zip(smooth, after, strict=True):
        pixels = (image.permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "JPEG", quality=quality)
        expected = np.asarray(Image.open(file), dtype=np.float32) / 255
        assert np.abs(found.permute(1, 2, 0).numpy() - expected).max() <= 2.5 / 255  # two builds of libjpeg


@pytest.mark.parametrize("sigma", [0.5, 1.0, 2.0])
def test_blur_is_a_gaussian(manager: Manager, tmp_path: Path, sigma: float) -> None:
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    after = filtered(manager, f"input-blur:sigma={sigma}", tmp_path, images).numpy()
    radius = int(np.ceil(3 * sigma))
    expected = gaussian_filter(images.numpy(), (0, 0, sigma, sigma), mode="mirror", radius=(0, 0, radius, radius))
    np.testing.assert_allclose(after, expected, atol=1e-5)


def test_noise_is_gaussian_of_the_stated_size_and_independent(manager: Manager, tmp_path: Path) -> None:
    grey = torch.full((4, 3, 64, 64), 0.5)
    grey += torch.arange(4.0).view(4, 1, 1, 1) / 1000
    noise = filtered(manager, "input-noise:sigma=0.05", tmp_path, grey) - grey
    assert noise.std(dim=(1, 2, 3)).numpy() == pytest.approx([0.05] * 4, rel=0.03)
    assert noise.mean(dim=(1, 2, 3)).abs().max() < 0.002
    between = np.corrcoef(noise.flatten(1).numpy()) - np.eye(4)
    assert np.abs(between).max() < 0.05


def test_noise_depends_on_the_image_and_on_the_seed(manager: Manager, tmp_path: Path) -> None:
    once, again, other = (filtered(manager, "input-noise", tmp_path, IMAGES, seed) for seed in "001")
    assert torch.equal(once, again)
    assert not torch.equal(once, other)


def test_a_mirror_image_is_mirrored(manager: Manager, tmp_path: Path) -> None:
    after = filtered(manager, "input-flip", tmp_path, IMAGES)
    np.testing.assert_array_equal(after.numpy(), IMAGES.numpy()[..., ::-1])


@pytest.mark.parametrize("levels", [2, 4, 8, 256])
def test_levels_are_the_nearest(manager: Manager, tmp_path: Path, levels: int) -> None:
    after = filtered(manager, f"input-levels:levels={levels}", tmp_path, IMAGES).numpy()
    nearest = np.abs(IMAGES.numpy()[..., None] - np.linspace(0, 1, levels)).min(axis=-1)
    np.testing.assert_allclose(np.abs(after - IMAGES.numpy()), nearest, atol=1e-6)
    assert len(np.unique(after)) <= levels


@pytest.mark.parametrize("decimals", [0, 1, 3])
def test_answers_are_rounded(manager: Manager, tmp_path: Path, decimals: int) -> None:
    model, bare = deployed(manager, f"output-round:decimals={decimals}", tmp_path), toy_model(n_classes=3)
    with torch.no_grad():
        for verb in ("features", "logits"):
            expected = np.round(getattr(bare, verb)(IMAGES).numpy(), decimals)
            np.testing.assert_allclose(getattr(model, verb)(IMAGES).numpy(), expected, atol=1e-6)
        torch.testing.assert_close(model.tokens(IMAGES), bare.tokens(IMAGES), rtol=0, atol=0)


def test_labels_only_answers_with_the_same_labels(manager: Manager, tmp_path: Path) -> None:
    model, bare = deployed(manager, "output-labels", tmp_path), toy_model(n_classes=3)
    assert (model.max_access, model.facts().max_access) == ("labels", "labels")
    found, expected = (amb.SuspectView(each, "labels").labels(IMAGES) for each in (model, bare))
    assert torch.equal(found, expected)
    amb.save_checkpoint(model, tmp_path / "deployed")
    assert amb.load_checkpoint(tmp_path / "deployed", "loaded", amb.build_model).max_access == "labels"


def test_what_cannot_decide_cannot_answer_with_labels(manager: Manager) -> None:
    (attack,) = manager.registry.attack_chain("output-labels")
    assert "no classification head" in (attack.skip(toy_model()) or "")


def test_filters_stack_in_the_order_of_the_chain(manager: Manager, tmp_path: Path) -> None:
    """What was put before the model first stands next to it, as on the machine of one who wraps what he was given."""
    after = filtered(manager, "input-levels:levels=2+input-blur", tmp_path, IMAGES)
    assert len(np.unique(after.numpy())) > 2


@pytest.mark.parametrize(
    ("name", "parameters"),
    [("jpeg-before", {"quality": 0}), ("blur-before", {"sigma": 1e9}), ("noise-before", {"sigma": 0.1, "seed": -1}),
     ("levels-before", {"levels": 1}), ("round-after", {"decimals": 99})],
)  # fmt: skip
def test_cards_with_impossible_filters_are_refused(manager: Manager, name: str, parameters: dict[str, float]) -> None:
    architecture = {**toy_model().architecture, "edits": [{"name": name, "parameters": parameters}]}
    with pytest.raises(AmbError, match="cannot be replayed"):
        amb.build_model(architecture)
