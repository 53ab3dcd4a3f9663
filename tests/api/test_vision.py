"""Models and views: the cut forward, copies, digests, and access that is enforced and counted."""

from __future__ import annotations

import pytest
import torch

from amb.api import vision
from amb.api.vision import SuspectView
from amb.errors import AccessError, NoHeadError
from amb.models.heads import SegmentationHead
from amb.testing import toy_model

IMAGES = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("registers", [0, 2])
def test_prefix_and_suffix_make_the_whole(registers: int) -> None:
    model = toy_model(registers=registers)
    for block in range(model.n_blocks):
        torch.testing.assert_close(model.suffix(model.prefix(IMAGES, block), block), model.tokens(IMAGES))


def test_images_of_another_size_are_resized() -> None:
    model = toy_model()
    assert model.features(torch.rand(2, 3, 40, 40)).shape == (2, 32)


def test_facts_do_not_count_registers() -> None:
    plain, registers = toy_model().facts(), toy_model(registers=3, n_classes=5).facts()
    assert plain.n_tokens == registers.n_tokens == 17
    assert (plain.n_classes, registers.n_classes) == (None, 5)


def test_a_copy_shares_nothing_and_has_the_same_digest() -> None:
    model = toy_model()
    twin = model.copy()
    assert twin.digest() == model.digest()
    with torch.no_grad():
        next(twin.parameters()).add_(1)
    assert twin.digest() != model.digest()


def test_logits_without_a_head_say_so() -> None:
    with pytest.raises(NoHeadError, match=r"toy/1 has no classification head \(it has: none\)"):
        toy_model().logits(IMAGES)


@pytest.mark.parametrize(("side", "size"), [(4, 16), (2, 16), (4, 24)])
def test_segmentation_logits_cover_the_image(side: int, size: int) -> None:
    model = toy_model().with_head("segmentation", SegmentationHead(32, 2, side))
    assert model.logits(torch.rand(2, 3, size, size), "segmentation").shape == (2, 2, size, size)


def test_segmentation_puts_each_patch_in_its_place() -> None:
    head = SegmentationHead(2, 1, side=4)
    torch.nn.init.constant_(head.linear.weight, 0.0)
    head.norm = torch.nn.Identity()
    with torch.no_grad():
        head.linear.bias.copy_(torch.arange(16.0))
    tile = head(torch.zeros(1, 1 + 16, 2), n_prefix=1, image_size=16)[0, 0, 4:8, 8:12]
    torch.testing.assert_close(tile, torch.arange(16.0).view(4, 4))


ASKING = {
    "labels": lambda view: view.labels(IMAGES),
    "logits": lambda view: view.logits(IMAGES),
    "features": lambda view: view.features(IMAGES),
    "weights": lambda view: view.model,
}


@pytest.mark.parametrize("declared", list(ASKING))
@pytest.mark.parametrize("wanted", list(ASKING))
def test_a_view_gives_what_was_declared_and_no_more(declared: str, wanted: str) -> None:
    view = SuspectView(toy_model(n_classes=3), declared)  # type: ignore[arg-type]
    if list(ASKING).index(wanted) <= list(ASKING).index(declared):
        ASKING[wanted](view)
    else:
        with pytest.raises(AccessError, match=f"asked the suspect for its {wanted}.*access to {declared} only"):
            ASKING[wanted](view)


def test_a_view_counts_queries() -> None:
    view = SuspectView(toy_model(n_classes=3), "logits")
    view.labels(IMAGES)
    view.logits(IMAGES[:1])
    assert view.queries == 5


def test_a_processor_gets_parts_that_its_cache_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    model, seen = toy_model().eval(), []
    images = torch.rand(10, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        whole = model.features(images)
        monkeypatch.setattr(vision, "_CACHED", 4 * images[0].numel())
        embed = model.backbone.embed
        monkeypatch.setattr(model.backbone, "embed", lambda part: seen.append(len(part)) or embed(part))
        torch.testing.assert_close(model.features(images), whole)
    assert sum(seen) == 10
    assert max(seen) == 4
