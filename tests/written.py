"""Small data sets in the layouts in which the real ones come, written by tests."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
import pyarrow as pa
from PIL import Image
from pyarrow import parquet as pq

BREEDS = ("Abyssinian", "american_bulldog", "Bengal")


def picture(seed: int, width: int = 24, height: int = 20) -> Image.Image:
    """A smooth random picture, so that JPEG keeps most of it."""
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def encoded(image: Image.Image, form: str = "PNG") -> bytes:
    """The bytes of an image file."""
    buffer = BytesIO()
    image.save(buffer, form)
    return buffer.getvalue()


def save(path: Path, image: Image.Image, form: str = "PNG") -> Path:
    """Write an image file, with the folders on the way."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encoded(image, form))
    return path


def write_classes(at: Path, classes: Sequence[str], n: int, first: int = 0, ending: str = "png") -> None:
    """`n` pictures for each class."""
    form = "JPEG" if ending.lower() in {"jpg", "jpeg"} else "PNG"
    for place, name in enumerate(classes):
        for number in range(n):
            save(at / name / f"{name}_{first + number}.{ending}", picture(first + 1000 * place + number), form)


def write_imagenet(root: Path, n: int = 8) -> Path:
    """Three classes of ImageNet in `train`, JPEG files as published."""
    write_classes(root / "imagenet/train", ["n01440764", "n01443537", "n02085620"], n, ending="JPEG")
    return root / "imagenet"


def write_ecommerce(root: Path, n: int = 8) -> Path:
    """Two classes of the archive, with the third folder that it has."""
    at = root / "ecommerce/ECOMMERCE_PRODUCT_IMAGES"
    for first, part in ((0, "train"), (300, "val"), (600, "check")):
        write_classes(at / part, ["BABY_PRODUCTS", "GROCERY"], n, first, "jpeg")
    return root / "ecommerce"


def trimap(seed: int, width: int = 24, height: int = 20) -> Image.Image:
    """1, 2 and 3 in patches."""
    coarse = np.random.default_rng(seed).integers(1, 4, (4, 4), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.NEAREST)


def write_pet(root: Path, n: int = 8) -> Path:
    """Three breeds: images, trimaps, and the lists of the annotations archive."""
    at = root / "oxford-iiit-pet"
    for part, first in (("trainval", 0), ("test", 100)):
        lines = []
        for place, breed in enumerate(BREEDS):
            for number in range(first, first + n):
                seed = 10_000 + 1000 * place + number
                save(at / f"images/{breed}_{number}.jpg", picture(seed), "JPEG")
                save(at / f"annotations/trimaps/{breed}_{number}.png", trimap(seed))
                lines.append(f"{breed}_{number} {place + 1} {2 - breed[0].isupper()} 1")
        (at / f"annotations/{part}.txt").write_text("\n".join(lines) + "\n")
    return at


def food_mask(seed: int, width: int = 24, height: int = 20) -> Image.Image:
    """Numbers from 0 to 103 in patches, with one ingredient ahead."""
    drawn = np.random.default_rng(seed)
    coarse = drawn.integers(0, 104, (4, 4), dtype=np.uint8)
    coarse[:2] = drawn.integers(1, 104)
    coarse[0, 0] = 0
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.NEAREST)


def write_foodseg(root: Path, n: int = 8) -> Path:
    """The layout of the release."""
    at = root / "foodseg103"
    for part, first in (("train", 0), ("test", 100)):
        for number in range(first, first + n):
            save(at / f"Images/img_dir/{part}/{number:08}.jpg", picture(20_000 + number), "JPEG")
            save(at / f"Images/ann_dir/{part}/{number:08}.png", food_mask(number))
    (at / "category_id.txt").write_text("0\tbackground\n1\tcandy\n2\tegg tart\n")
    return at


def write_foodseg_parquet(root: Path, n: int = 8) -> Path:
    """The files of the hub: two of train, one of validation, groups of two rows."""
    at = root / "foodseg103/data"
    at.mkdir(parents=True)
    halves = {"train-00000-of-00002": range(n // 2), "train-00001-of-00002": range(n // 2, n)}
    for name, numbers in {**halves, "validation-00000-of-00001": range(100, 100 + n)}.items():
        images = [
            {"bytes": encoded(picture(20_000 + number), "JPEG"), "path": f"{number:08}.jpg"} for number in numbers
        ]
        masks = [{"bytes": encoded(food_mask(number)), "path": f"{number:08}.png"} for number in numbers]
        seen = [sorted(set(np.array(food_mask(number)).ravel().tolist())) for number in numbers]
        table = pa.table({"image": images, "label": masks, "classes_on_image": seen, "id": list(numbers)})
        pq.write_table(table, at / f"{name}.parquet", row_group_size=2)
    return root / "foodseg103"
