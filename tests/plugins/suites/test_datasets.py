"""Data sets on disk: pixels, labels and masks as other libraries have them, fixed splits, and whatever can be wrong."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any
from unicodedata import normalize

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image, ImageOps
from torchvision import datasets as published

import amb
from amb.cli import cli
from amb.evaluation.utility import utility
from amb.runtime.paths import DATA, DOWNLOAD, OFFLINE
from amb.testing import toy_context, toy_model
from amb_suites import real
from amb_suites.class_folders import ClassFolders
from amb_suites.datasets import DataError, DataSet, Item
from amb_suites.ecommerce import Ecommerce
from amb_suites.folder import FolderSuite
from amb_suites.foodseg import FoodSeg103
from amb_suites.imagenet import ImageNet
from amb_suites.images import ImageSplit, RoleImages, cut, serve
from amb_suites.pet import Pet
from tests.written import (
    encoded,
    picture,
    save,
    write_classes,
    write_ecommerce,
    write_foodseg,
    write_foodseg_parquet,
    write_imagenet,
    write_pet,
)

ROLES = ("owner", "attacker", "trigger", "test")


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty data root."""
    for name in (DOWNLOAD, *OFFLINE):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(DATA, str(tmp_path / "data"))
    (tmp_path / "data").mkdir()
    real._serve_roles.cache_clear()
    return tmp_path / "data"


def everything(data_set: DataSet, part: Any = "train", size: int = 16) -> ImageSplit:
    """Every image of a part, in the order of its list."""
    index = data_set.index()
    return ImageSplit(serve(index, part, index.parts[part], 10**6, skip_broken=False), size)


def folder(**more: Any) -> FolderSuite:
    return FolderSuite.create({"model": "file/x", "data": "birds", "image_size": 16, **more})


def geometry(image: Image.Image, size: int, how: Image.Resampling) -> np.ndarray:
    """Shorter side to `size`, then the middle, by Pillow alone."""
    width, height = image.size
    scale = size / min(width, height)
    image = image.resize((max(size, int(width * scale)), max(size, int(height * scale))), how)
    left, top = round((image.width - size) / 2), round((image.height - size) / 2)
    return np.array(image.crop((left, top, left + size, top + size)))


# Layouts


@pytest.mark.parametrize(("ending", "form"), [("png", "PNG"), ("JPEG", "JPEG"), ("webp", "WEBP"), ("bmp", "BMP")])
def test_pixels_are_pillows_own(root: Path, ending: str, form: str) -> None:
    path = save(root / f"imagenet/train/n01/a.{ending}", picture(1, 37, 22), form)
    [image] = everything(ImageNet(), size=16).batch([0]).images
    with Image.open(path) as opened:
        expected = geometry(opened.convert("RGB"), 16, Image.Resampling.BICUBIC)
    np.testing.assert_array_equal((image * 255).round().byte().permute(1, 2, 0).numpy(), expected)
    assert image.dtype == torch.float32


def test_class_folders_have_the_labels_of_torchvision(root: Path) -> None:
    at = write_imagenet(root)
    index = ImageNet().index()
    samples = published.ImageFolder(at / "train").samples
    assert {(at / item.name).as_posix(): item.label for item in index.parts["train"]} == dict(samples)


def test_imagenet_without_train_serves_val(root: Path) -> None:
    write_classes(root / "imagenet/val", ["n01", "n02"], 2, ending="JPEG")
    assert next(item.name for item in ImageNet().index().parts["train"]) == "val/n01/n01_0.JPEG"


def test_pet_is_what_torchvision_makes_of_the_same_files(root: Path) -> None:
    write_pet(root)
    for part, split in (("train", "trainval"), ("test", "test")):
        theirs = published.OxfordIIITPet(root, split, ["category", "segmentation"])
        ours = everything(Pet(), part)
        batch = ours.batch(range(len(ours)))
        assert len(ours) == len(theirs)
        assert Pet().index().classes == tuple(theirs.classes)
        for place, (image, (label, mask)) in enumerate(theirs):
            expected = geometry(image, 16, Image.Resampling.BICUBIC)
            np.testing.assert_array_equal((batch.images[place] * 255).round().byte().permute(1, 2, 0), expected)
            np.testing.assert_array_equal(batch.masks[place], geometry(mask, 16, Image.Resampling.NEAREST) - 1)
            assert batch.labels[place] == label


def test_pet_masks_count_from_foreground(root: Path) -> None:
    write_pet(root)
    batch = everything(Pet()).batch(range(24))
    assert set(batch.masks.unique().tolist()) == {0, 1, 2}
    assert everything(Pet()).n_mask_classes == 3


def test_foodseg_is_the_same_from_the_release_and_from_the_hub(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_foodseg(root)
    released = {part: everything(FoodSeg103(), part).batch(range(8)) for part in ("train", "test")}
    monkeypatch.setenv(DATA, str(root / "other"))
    write_foodseg_parquet(root / "other")
    for part, theirs in released.items():
        ours = everything(FoodSeg103(), part).batch(range(8))
        for one, other in zip(ours, theirs, strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=0)


def test_rows_of_parquet_files_come_in_any_order(root: Path) -> None:
    write_foodseg_parquet(root)
    split = everything(FoodSeg103())
    whole = split.batch(range(8))
    order = [7, 0, 5, 5, 2]
    torch.testing.assert_close(split.batch(order).images, whole.images[order], rtol=0, atol=0)
    torch.testing.assert_close(split.batch(order).labels, whole.labels[order], rtol=0, atol=0)


def test_the_label_of_food_is_the_ingredient_with_most_pixels(root: Path) -> None:
    at = write_foodseg(root)
    labels = everything(FoodSeg103()).batch(range(8)).labels.tolist()
    for number, label in enumerate(labels):
        with Image.open(at / f"Images/ann_dir/train/{number:08}.png") as mask:
            pixels = np.array(mask).ravel().tolist()
        assert label == max(sorted(set(pixels) - {0}), key=pixels.count)


def test_food_that_shows_nothing_is_background(root: Path) -> None:
    at = write_foodseg(root, n=1)
    save(at / "Images/ann_dir/train/00000000.png", Image.new("L", (24, 20)))
    assert everything(FoodSeg103()).batch([0]).labels.tolist() == [0]


def test_food_has_its_names(root: Path) -> None:
    write_foodseg(root, n=1)
    index = FoodSeg103().index()
    assert index.classes[:4] == ("background", "candy", "egg tart", "3")
    assert len(index.classes) == index.n_mask_classes == 104


@pytest.mark.parametrize("within", ["ECOMMERCE_PRODUCT_IMAGES", ""])
def test_ecommerce_has_train_and_val_and_leaves_check(root: Path, within: str) -> None:
    at = write_ecommerce(root, n=3)
    if not within:
        (at / "ECOMMERCE_PRODUCT_IMAGES").rename(root / "inner")
        at.rmdir()
        (root / "inner").rename(at)
    index = Ecommerce().index()
    assert {part: len(items) for part, items in index.parts.items()} == {"train": 6, "test": 6}
    assert not any("check" in item.name for items in index.parts.values() for item in items)
    assert index.classes == ("BABY_PRODUCTS", "GROCERY")


# Splits


def test_no_file_serves_two_roles(root: Path) -> None:
    write_classes(root / "birds", ["crow", "jay"], 20)
    files = [set(folder().files(role)) for role in ROLES]
    assert sum(map(len, files)) == len(set.union(*files)) == 40
    assert [len(each) for each in files] == [16, 10, 6, 8]


def test_test_images_are_the_data_sets_own(root: Path) -> None:
    write_classes(root / "birds/train", ["crow", "jay"], 10)
    write_classes(root / "birds/val", ["crow", "jay"], 5, first=50)
    suite = folder()
    assert {name.split("/")[0] for name in suite.files("test")} == {"val"}
    assert {name.split("/")[0] for role in ROLES[:3] for name in suite.files(role)} == {"train"}
    assert len(suite.files("test")) == 10


def test_shares_follow_from_a_hash_of_seed_and_name() -> None:
    items = [Item(f"a/{number}.png", 0) for number in range(10)]
    order = sorted(items, key=lambda item: hashlib.sha256(f"3\0{item.name}".encode()).digest())
    assert cut(items, 3, {"one": 0.7, "two": 0.3}) == {"one": order[:7], "two": order[7:]}
    assert cut(items[::-1], 3, {"one": 0.7, "two": 0.3}) == {"one": order[:7], "two": order[7:]}
    assert cut(items, 4, {"one": 1.0})["one"] != order


def test_splits_do_not_hang_on_the_order_of_the_file_system(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_classes(root / "birds", ["crow", "jay", "wren"], 8)
    before, digest = [folder().files(role) for role in ROLES], folder().definition()
    walk = os.walk
    monkeypatch.setattr(os, "walk", lambda *a, **k: ((at, inner, files[::-1]) for at, inner, files in walk(*a, **k)))
    real._serve_roles.cache_clear()
    assert [folder().files(role) for role in ROLES] == before
    assert folder().definition() == digest


def test_another_seed_shares_out_otherwise(root: Path) -> None:
    write_classes(root / "birds", ["crow", "jay"], 20)
    assert set(folder().files("test")) != set(folder(seed=1).files("test"))


def definition(suite: FolderSuite) -> dict[str, Any]:
    """As a new process would see it."""
    real._serve_roles.cache_clear()
    return suite.definition()["data"]


def test_the_definition_changes_with_files_and_not_with_dates(root: Path) -> None:
    write_classes(root / "birds", ["crow", "jay"], 20)
    suite = folder(n_images=4)
    before = definition(suite)
    os.utime(root / "birds/crow/crow_0.png", (0, 0))
    assert definition(suite) == before
    save(root / "birds/crow/new.png", picture(99))
    after = definition(suite)
    assert all(after[role]["digest"] != before[role]["digest"] for role in ROLES)


def test_the_definition_changes_with_the_size_of_a_file_that_serves(root: Path) -> None:
    write_classes(root / "birds", ["crow", "jay"], 20)
    before = definition(folder())
    save(root / "birds" / folder().files("test")[0], picture(5, 50, 50))
    after = definition(folder())
    assert [role for role in ROLES if after[role] != before[role]] == ["test"]


def list_files(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["data", "files", *arguments])


def test_files_can_be_listed_by_role(root: Path) -> None:
    write_classes(root / "birds", ["crow", "jay"], 20)
    spec = "folder:model=file/x,data=birds,image_size=16"
    rows = [line.split("\t") for line in list_files(spec).stdout.splitlines()]
    assert [name for role, name in rows if role == "trigger"] == folder().files("trigger")
    assert len(rows) == 40
    found = json.loads(list_files(spec, "--role", "test", "--format", "json").stdout)
    assert found == [{"role": "test", "file": name} for name in folder().files("test")]


def test_files_are_of_the_root_that_is_named(root: Path, tmp_path: Path) -> None:
    """A stray --data emptied the root, so nothing was found."""
    write_classes(tmp_path / "elsewhere/birds", ["crow", "jay"], 20)
    found = list_files("folder:model=file/x,data=birds", "--data", str(tmp_path / "elsewhere"))
    assert len(found.stdout.splitlines()) == 40


def test_a_suite_without_files_and_an_unknown_one_say_so(root: Path) -> None:
    assert "reads no files: it makes its images" in str(list_files("tiny").exception)
    assert "No suite is called 'paper-clop'" in str(list_files("paper-clop").exception)
    assert "--data" in list_files("--help").stdout


def test_threads_read_what_one_reads(root: Path) -> None:
    write_foodseg_parquet(root)
    split = everything(FoodSeg103())
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda place: split.batch([place % 8]).images[0], range(32)))
    torch.testing.assert_close(torch.stack(found[8:16]), split.batch(range(8)).images, rtol=0, atol=0)


def test_images_without_class_folders_are_of_one_class(root: Path, tmp_path: Path) -> None:
    """An owner's own images need no labels; of classes nothing is measured then."""
    (root / "birds").mkdir()
    for number in range(40):
        picture(number, 24, 20).save(root / "birds" / f"{number}.png")
    suite = folder()
    assert suite.split("owner").n_classes == 1
    assert sum(len(suite.split(role)) for role in ROLES) == 40
    ctx = toy_context(tmp_path)
    splits = {role: suite.split(role) for role in ROLES}
    assert set(utility(toy_model(), replace(ctx, splits=splits), 16, 8)) == set()


# Masks of one's own


def write_masked(root: Path, where: str, white: int) -> dict[str, np.ndarray]:
    """Four images of two classes, each with a mask of its own beside it or in the tree of masks."""
    masks = {}
    for number, name in enumerate(["crow/a", "crow/b", "wren/a", "wren/b"]):
        save(root / f"birds/train/{name}.png", picture(number, 24, 24), "PNG")
        save(root / f"birds/val/{name}.png", picture(number + 9, 24, 24), "PNG")
        for part in ("train", "val"):
            mask = np.zeros((24, 24), dtype=np.uint8)
            mask[: 4 + number, 3:20] = white
            masks[f"{part}/{name}"] = mask > 0
            at = f"{part}/{name}_mask.png" if where == "beside" else f"masks/{part}/{name}.png"
            save(root / "birds" / at, Image.fromarray(mask), "PNG")
    return masks


@pytest.mark.parametrize("where", ["beside", "tree"])
@pytest.mark.parametrize("white", [1, 255])
def test_masks_lie_beside_their_images_or_in_a_tree(root: Path, where: str, white: int) -> None:
    masks = write_masked(root, where, white)
    suite = folder(mask_classes=2, image_size=24)
    found = {}
    for role in ROLES:
        split, names = suite.split(role), suite.files(role)
        assert (split.n_classes, split.n_mask_classes) == (2, 2)
        batch = split.batch(range(len(split)))
        assert batch.masks is not None
        found |= dict(zip(names, batch.masks.numpy(), strict=True))
    assert {name.removesuffix(".png") for name in found} == set(masks)  # no mask is taken for an image
    for name, mask in found.items():
        np.testing.assert_array_equal(mask, masks[name.removesuffix(".png")])


def test_a_class_may_be_called_masks_where_there_are_none(root: Path) -> None:
    write_classes(root / "birds", ["masks", "wren"], 8)
    assert folder().split("owner").n_classes == 2


def test_a_missing_mask_and_an_unknown_class_are_named(root: Path) -> None:
    write_masked(root, "beside", 3)
    with pytest.raises(DataError, match="its mask has the numbers 0 to 3; the classes are 0 to 1"):
        folder(mask_classes=2).split("owner")
    (root / "birds/train/crow/a_mask.png").unlink()
    with pytest.raises(
        DataError, match=r"crow/a.png has no mask: expected is a_mask.png beside it, or masks/train/crow/a.png"
    ):
        folder(mask_classes=4).split("owner")


# Photographs, and names


@pytest.mark.parametrize("orientation", range(10))
def test_photographs_of_ones_own_are_turned_upright(root: Path, orientation: int) -> None:
    """As Pillow's own `exif_transpose` does it; what a camera cannot say leaves them as they are."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = root / "birds/crow/a.jpg"
    path.parent.mkdir(parents=True)
    picture(5, 40, 24).save(path, exif=exif)
    [image] = everything(ClassFolders("birds")).batch([0]).images
    with Image.open(path) as opened:
        expected = geometry(ImageOps.exif_transpose(opened).convert("RGB"), 16, Image.Resampling.BICUBIC)
    np.testing.assert_array_equal((image * 255).round().byte().permute(1, 2, 0).numpy(), expected)


def test_published_sets_are_not_turned(root: Path) -> None:
    """As torchvision reads them: masks and published figures go by the pixels as they lie there."""
    exif = Image.Exif()
    exif[0x0112] = 6
    path = root / "imagenet/train/n01/a.JPEG"
    path.parent.mkdir(parents=True)
    picture(5, 40, 24).save(path, "JPEG", exif=exif)
    [image] = everything(ImageNet()).batch([0]).images
    with Image.open(path) as opened:
        expected = geometry(opened.convert("RGB"), 16, Image.Resampling.BICUBIC)
    np.testing.assert_array_equal((image * 255).round().byte().permute(1, 2, 0).numpy(), expected)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_a_broken_orientation_is_no_broken_picture(root: Path) -> None:
    path = root / "birds/crow/a.jpg"
    path.parent.mkdir(parents=True)
    picture(5).save(path, exif=b"Exif\x00\x00II*\x00\xff\xff\xff\xff")
    assert len(everything(ClassFolders("birds")).batch([0]).images) == 1


def test_two_forms_of_one_name_get_the_same_role_and_class(root: Path) -> None:
    """macOS writes an accent as a letter of its own; the same data on Linux has to be shared out alike."""
    told = {}
    for form in ("NFC", "NFD"):
        for number, name in enumerate(
            f"{bird} {n}" for bird in ("hérisson", "élan", "zèbre", "fou") for n in range(10)
        ):
            bird = name.split()[0]
            save(root / form / normalize(form, bird) / normalize(form, f"{name}.png"), picture(number))
        suite = folder(data=form)
        told[form] = {role: [normalize("NFC", name) for name in suite.files(role)] for role in ROLES}
        told[form]["classes"] = [normalize("NFC", name) for name in ClassFolders(form).index().classes]
        told[form]["digest"] = suite.data_facts()["trigger"]["digest"]
    assert told["NFC"] == told["NFD"]


def test_a_gif_is_looked_at_and_its_first_picture_taken(root: Path) -> None:
    path = root / "birds/crow/a.gif"
    path.parent.mkdir(parents=True)
    picture(1).save(path, save_all=True, append_images=[picture(2)])
    [image] = everything(ClassFolders("birds")).batch([0]).images
    with Image.open(path) as opened:
        expected = geometry(opened.convert("RGB"), 16, Image.Resampling.BICUBIC)
    np.testing.assert_array_equal((image * 255).round().byte().permute(1, 2, 0).numpy(), expected)


# Images that are not plain RGB


def odd(mode: str) -> Image.Image:
    if mode == "P with transparency":
        image = picture(3).convert("P")
        image.info["transparency"] = b"\x00" * 10
        return image
    return picture(3).convert(mode)


@pytest.mark.parametrize(
    ("mode", "form"),
    [("L", "PNG"), ("1", "PNG"), ("LA", "PNG"), ("RGBA", "PNG"), ("P", "PNG"), ("CMYK", "JPEG"), ("L", "JPEG")],
)
def test_other_modes_become_rgb_and_are_counted(
    root: Path, mode: str, form: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = save(root / "imagenet/train/n01/a.jpg", odd(mode), form)
    save(root / "imagenet/train/n01/b.jpg", picture(4), "JPEG")
    with caplog.at_level(logging.WARNING):
        batch = everything(ImageNet()).batch([0, 1])
    with Image.open(path) as opened:
        expected = geometry(opened.convert("RGB"), 16, Image.Resampling.BICUBIC)
    np.testing.assert_array_equal((batch.images[0] * 255).round().byte().permute(1, 2, 0), expected)
    assert f"1 of 2 images converted to RGB (1 {mode})" in caplog.text


def test_a_palette_with_transparency_becomes_rgb_in_silence(root: Path) -> None:
    path = root / "imagenet/train/n01/a.png"
    path.parent.mkdir(parents=True)
    odd("P with transparency").save(path, transparency=b"\x00" * 10)
    assert everything(ImageNet()).batch([0]).images.shape == (1, 3, 16, 16)


def test_plain_data_says_nothing(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_imagenet(root)
    everything(ImageNet())
    assert not caplog.records


# What can be wrong with images

EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 20 20\n%%EndComments\nshowpage\n"
BROKEN: dict[str, Callable[[], bytes]] = {
    "empty": lambda: b"",
    "text": lambda: b"not an image at all",
    "postscript": lambda: EPS,
    "half a JPEG": lambda: encoded(picture(1, 200, 200), "JPEG")[:2000],
    "half a PNG": lambda: encoded(picture(1, 200, 200), "PNG")[:2000],
    "a flipped byte in a PNG": lambda: encoded(picture(1), "PNG").replace(b"IDAT", b"IDAT\xff", 1),
    "16 bits": lambda: encoded(Image.fromarray(np.full((20, 24), 999, np.uint16)), "PNG"),
    "half a WebP": lambda: encoded(picture(1, 200, 200), "WEBP")[:300],
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_image_is_named_and_refused(root: Path, kind: str) -> None:
    write_imagenet(root, n=4)
    (root / "imagenet/train/n01440764/bad.jpg").write_bytes(BROKEN[kind]())
    with pytest.raises(
        DataError, match=r"^ImageNet \(ILSVRC 2012\): train/n01440764/bad\.jpg: .*broken=skip\.$"
    ) as info:
        everything(ImageNet())
    assert info.value.exit_code == 2
    assert "\n" not in str(info.value)


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_image_is_skipped_where_that_was_asked_for(
    root: Path, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    write_classes(root / "birds", ["crow", "jay"], 10)
    (root / "birds/jay/bad.png").write_bytes(BROKEN[kind]())
    suite = folder(broken="skip")
    shares = {role: suite.split(role) for role in ROLES}
    assert sum(map(len, shares.values())) == 20
    assert sum(suite.definition()["data"][role]["skipped"] for role in ROLES) == 1
    assert "1 broken images skipped, the first jay/bad.png" in caplog.text
    for split in shares.values():
        split.batch(range(len(split)))


def test_a_skipped_image_makes_room_for_the_next_and_moves_nobody(root: Path) -> None:
    write_classes(root / "birds", ["crow", "jay"], 20)
    suite = folder(n_images=5, broken="skip")
    before = {role: suite.files(role) for role in ROLES}
    gone = before["attacker"][1]
    (root / "birds" / gone).write_bytes(b"")
    real._serve_roles.cache_clear()
    after = {role: suite.files(role) for role in ROLES}
    assert after["attacker"][:4] == [name for name in before["attacker"] if name != gone]
    assert len(after["attacker"]) == 5
    assert {role: after[role] for role in ROLES if role != "attacker"} == {
        role: before[role] for role in ROLES if role != "attacker"
    }


def test_an_image_that_breaks_later_is_named(root: Path) -> None:
    write_imagenet(root, n=2)
    split = everything(ImageNet())
    (root / "imagenet/train/n01440764/n01440764_0.JPEG").write_bytes(b"gone")
    with pytest.raises(DataError, match="n01440764_0.JPEG was in order when the run began"):
        split.batch([0])


def test_a_mask_of_another_size_names_both(root: Path) -> None:
    at = write_pet(root, n=1)
    save(at / "annotations/trimaps/Bengal_0.png", Image.new("L", (9, 7), 1))
    with pytest.raises(DataError, match=r"images/Bengal_0\.jpg: its mask is 9 x 7 pixels, the image 24 x 20"):
        everything(Pet())


@pytest.mark.parametrize("number", [0, 4])
def test_a_mask_with_other_numbers_is_refused(root: Path, number: int) -> None:
    at = write_pet(root, n=1)
    save(at / "annotations/trimaps/Bengal_0.png", Image.new("L", (24, 20), number))
    with pytest.raises(
        DataError, match=f"Bengal_0.jpg: its mask has the numbers {number} to {number}; the classes are 1 to 3"
    ):
        everything(Pet())


def test_a_coloured_mask_is_refused(root: Path) -> None:
    at = write_pet(root, n=1)
    save(at / "annotations/trimaps/Bengal_0.png", picture(1))
    with pytest.raises(DataError, match="its mask has the mode RGB"):
        everything(Pet())


@pytest.mark.parametrize("name", ["images/Bengal_0.jpg", "annotations/trimaps/Bengal_0.png"])
def test_a_listed_file_that_is_missing_is_named(root: Path, name: str) -> None:
    at = write_pet(root, n=1)
    (at / name).unlink()
    with pytest.raises(DataError, match=r"images/Bengal_0\.jpg: .*is not there"):
        everything(Pet())


def test_a_damaged_parquet_file_is_named(root: Path) -> None:
    at = write_foodseg_parquet(root)
    (at / "data/validation-00000-of-00001.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(DataError, match="validation-00000-of-00001.parquet is not a whole parquet file"):
        FoodSeg103().index()


def test_postscript_is_not_handed_to_an_interpreter(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    called = []
    monkeypatch.setattr("PIL.EpsImagePlugin.Ghostscript", lambda *a, **k: called.append(a))
    write_imagenet(root, n=1)
    (root / "imagenet/train/n01440764/bad.jpg").write_bytes(EPS)
    with pytest.raises(DataError):
        everything(ImageNet())
    assert not called


# What can be wrong with folders


def test_an_empty_class_is_named_and_refused(root: Path) -> None:
    write_classes(root / "birds", ["crow", "jay"], 10)
    (root / "birds/dodo").mkdir()
    with pytest.raises(DataError, match="birds: dodo has no images.*empty_classes=drop"):
        folder().split("owner")


def test_an_empty_class_is_left_out_where_that_was_asked_for(root: Path) -> None:
    write_classes(root / "birds", ["crow", "jay"], 10)
    (root / "birds/dodo").mkdir()
    assert folder(empty_classes="drop").split("owner").served.index.classes == ("crow", "jay")


def test_files_that_are_no_images_are_not_looked_at(root: Path) -> None:
    write_classes(root / "birds", ["crow", "jay"], 10)
    for name in ("crow/notes.txt", "crow/._crow_1.png", "crow/Thumbs.db", "readme.png", ".cache/jay.png"):
        (root / "birds" / name).parent.mkdir(exist_ok=True)
        (root / "birds" / name).write_bytes(b"x")
    assert sum(len(folder().files(role)) for role in ROLES) == 20


def test_a_root_that_is_a_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "plain").write_text("x")
    monkeypatch.setenv(DATA, str(tmp_path / "plain"))
    with pytest.raises(amb.MissingError, match="plain is a file; a folder of data sets is expected"):
        Pet().index()


def test_a_data_set_that_is_a_file_is_named(root: Path) -> None:
    (root / "imagenet").write_text("x")
    with pytest.raises(amb.MissingError, match="imagenet is a file"):
        ImageNet().index()


@pytest.mark.parametrize("name", ["train", "train/n01440764"])
def test_a_folder_that_may_not_be_read_is_named(root: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    write_imagenet(root)
    scandir = os.scandir

    def refuse(path: Any = ".") -> Any:
        if str(path).endswith(name):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(amb.MissingError, match=rf"imagenet/{name} cannot be read \(Permission denied\)"):
        ImageNet().index()


@pytest.mark.parametrize("name", ["../birds", "/etc", "a/../../b", "C:\\data", "..\\x"])
def test_a_spec_cannot_leave_the_data_root(name: str) -> None:
    with pytest.raises(amb.BadParamsError, match="folder under the data root"):
        folder(data=name)


def test_a_list_cannot_name_files_elsewhere(root: Path) -> None:
    at = write_pet(root, n=1)
    (at / "annotations/test.txt").write_text("../../../../etc/passwd_1 1 1 1\n")
    with pytest.raises(DataError, match="not a plain name"):
        Pet().index()


def test_a_list_that_does_not_parse_names_its_line(root: Path) -> None:
    at = write_pet(root, n=1)
    (at / "annotations/test.txt").write_text("Bengal_100 3 1 1\nBengal_101 three 1 1\n")
    with pytest.raises(DataError, match="test.txt, line 2"):
        Pet().index()


def test_a_role_without_images_is_named(root: Path) -> None:
    write_classes(root / "birds", ["crow"], 2)
    with pytest.raises(DataError, match="birds leaves no image for the role"):
        folder().split("owner")


# Missing data, and fetching it

SETS: list[tuple[type[DataSet], str]] = [
    (ImageNet, "image-net.org"),
    (Pet, "robots.ox.ac.uk"),
    (FoodSeg103, "EduardoPacheco/FoodSeg103"),
    (Ecommerce, "fatihkgg/ecommerce-product-images-18k"),
]


@pytest.mark.parametrize(("data_set", "address"), SETS)
def test_missing_data_is_said_in_one_line(root: Path, data_set: type[DataSet], address: str) -> None:
    with pytest.raises(amb.MissingError) as info:
        data_set().index()
    text = str(info.value)
    assert "\n" not in text
    for part in (str(root / data_set.folder), data_set.expected, address, "--data"):
        assert part in text
    assert ("--download fetches it" in text) == data_set.fetchable
    assert info.value.exit_code == 3


@pytest.mark.parametrize(("data_set", "write"), [(ImageNet, write_imagenet), (Pet, write_pet), (FoodSeg103, write_foodseg),
                                                 (Ecommerce, write_ecommerce)])  # fmt: skip
def test_a_plan_knows_what_is_there(root: Path, data_set: type[DataSet], write: Callable[[Path], Path]) -> None:
    before = data_set().fetch()
    write(root)
    assert (before.cached, data_set().fetch().cached) == (False, True)
    assert before.source == data_set.source


def fake_pet(at: Path, download: bool) -> None:
    assert download
    write_pet(Path(at))


def fake_snapshot(repo: str, *, repo_type: str, local_dir: Path, allow_patterns: list[str]) -> None:
    assert (repo, repo_type, allow_patterns) == ("EduardoPacheco/FoodSeg103", "dataset", ["data/*.parquet"])
    write_foodseg_parquet(Path(local_dir).parent)


@pytest.fixture
def libraries(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    monkeypatch.setattr(published, "OxfordIIITPet", fake_pet)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", fake_snapshot)


@pytest.mark.usefixtures("libraries")
@pytest.mark.parametrize("data_set", [Pet, FoodSeg103])
def test_data_is_fetched_when_asked(data_set: type[DataSet], root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(DOWNLOAD, "1")
    assert data_set().index().parts["train"]


@pytest.mark.usefixtures("libraries")
@pytest.mark.parametrize("data_set", [Pet, FoodSeg103])
@pytest.mark.parametrize("settings", [{}, {DOWNLOAD: "1", OFFLINE[0]: "1"}, {DOWNLOAD: "1", OFFLINE[1]: "1"}])
def test_data_is_not_fetched_otherwise(
    data_set: type[DataSet], settings: dict[str, str], root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(amb.MissingError):
        data_set().index()
    assert not list(root.iterdir())


@pytest.mark.parametrize("data_set", [ImageNet, Ecommerce])
def test_data_behind_an_account_is_never_fetched(
    data_set: type[DataSet], monkeypatch: pytest.MonkeyPatch, root: Path
) -> None:
    monkeypatch.setenv(DOWNLOAD, "1")
    with pytest.raises(amb.MissingError, match="wants an account"):
        data_set().index()


def test_a_download_that_fails_is_one_line(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise ConnectionError("no route\nto host")

    monkeypatch.setattr(published, "OxfordIIITPet", fail)
    monkeypatch.setenv(DOWNLOAD, "1")
    with pytest.raises(amb.MissingError, match=r"could not be fetched from .* \(ConnectionError: no route to host\)"):
        Pet().index()


def test_declaring_suites_imports_nothing_heavy() -> None:
    code = (
        "import sys; from amb.plugin.manager import manager; s = manager().registry.suite('paper-clip'); s.fetches(); "
        "print({'torch', 'torchvision', 'PIL', 'pyarrow', 'datasets', 'huggingface_hub'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_a_split_says_how_many_classes_it_has(root: Path) -> None:
    write_imagenet(root)
    index = ImageNet().index()
    split = ImageSplit(RoleImages(index, ()), 16)
    assert (split.n_classes, split.n_mask_classes, len(split)) == (3, 0, 0)
    assert isinstance(split, amb.Split)
