"""The embedded suite: disjoint scans, images by index, models as good as their cards say."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import amb
from amb_suites.digits import SHARES, compose, scan_indices
from amb_suites.recipe import RECIPES, figures_on_test
from amb_suites.tiny import DISTILLED, INDEPENDENTS, UNTRAINED, WEIGHTS

NAMES = ("owner", *(name for name in INDEPENDENTS if name != UNTRAINED), DISTILLED)


def test_no_scan_serves_two_splits() -> None:
    drawn = [set(scan_indices(split).tolist()) for split in SHARES]
    assert sum(map(len, drawn)) == len(set.union(*drawn)) == 1797


def test_an_image_depends_on_its_index_alone() -> None:
    together, alone = compose("owner", [7, 3, 10**9]), compose("owner", [3])
    torch.testing.assert_close(together.images[1:2], alone.images, rtol=0, atol=0)
    assert not torch.equal(together.images[0], together.images[1])
    assert not torch.equal(compose("test", [3]).images, alone.images)


def test_images_are_bytes_and_masks_cover_the_ink() -> None:
    batch = compose("test", range(200))
    torch.testing.assert_close((batch.images * 255).round() / 255, batch.images, rtol=0, atol=0)
    assert batch.masks is not None
    shares = batch.masks.float().mean(dim=(1, 2))
    assert shares.min() > 0.01
    assert shares.max() < 0.5
    inside = (batch.images * batch.masks[:, None]).sum(dim=(1, 2, 3)) / (3 * batch.masks.sum(dim=(1, 2)))
    outside = (batch.images * (1 - batch.masks[:, None])).sum(dim=(1, 2, 3)) / (3 * (1 - batch.masks).sum(dim=(1, 2)))
    assert (inside - outside).abs().min() > 0.1, "ink stands off the ground"


def test_every_class_is_drawn() -> None:
    assert set(compose("owner", range(500)).labels.tolist()) == set(range(10))


@pytest.mark.parametrize("name", NAMES)
def test_models_are_what_their_cards_say(name: str) -> None:
    card = amb.read_card(WEIGHTS / name)
    model = amb.load_model(f"tiny/{name}")
    assert model.digest() == card.digest
    assert card.about["seed"] == RECIPES[name].seed
    figures = figures_on_test(model)
    for figure, value in card.about["test"].items():
        assert figures[figure] == pytest.approx(value, abs=0.005)


def test_the_owner_is_a_real_model_of_less_than_a_million_weights() -> None:
    about = amb.read_card(WEIGHTS / "owner").about
    assert about["parameters"] <= 1_000_000
    assert about["test"]["accuracy"] >= 0.93
    assert about["test"]["miou"] >= 0.85


def test_the_models_together_are_small() -> None:
    assert sum(path.stat().st_size for path in Path(WEIGHTS).iterdir()) <= 10 * 2**20


def test_negatives_are_of_the_kinds_that_the_paper_has() -> None:
    made = {name: amb.load_model(f"tiny/{name}") for name in NAMES}
    owner, seed, data, registers, conv = (
        made[name] for name in ("owner", "other-seed", "other-data", "registers", "convnet")
    )
    assert owner.architecture == seed.architecture == data.architecture
    assert RECIPES["other-data"].split != RECIPES["owner"].split
    assert registers.backbone.n_prefix == 5
    assert conv.n_blocks == 0


def test_the_untrained_model_knows_nothing_and_is_the_same_every_time() -> None:
    one, two = (amb.load_model(f"tiny/{UNTRAINED}") for _ in range(2))
    assert one.digest() == two.digest()
    assert one.architecture == amb.load_model("tiny/owner").architecture
    assert figures_on_test(one)["accuracy"] < 0.2
