"""Photographs composed of cut-out objects and backgrounds: each follows from its part, class and number alone."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image

from amb_suites.class_folders import MASK_ENDING
from amb_suites.datasets import DataError
from amb_suites.photos.packages import read_deb

SIDE: Final = 160
"""Side of a composition in pixels."""
COUNTS: Final[Mapping[str, int]] = {"train": 360, "val": 120}
"""Compositions of each class in each part."""
VAL_SHARE: Final = 0.25
"""Of the objects of a class, and of the backgrounds, those that are the judge's alone."""
STAMPS: Final = "/usr/share/tuxpaint/stamps/"
CLASSES: Final[Mapping[str, str]] = {
    "bird": "animals/birds",
    "fish": "animals/fish",
    "flower": "plants/flowers",
    "fruit": "food/fruit",
    "insect": "animals/insects",
    "mammal": "animals/mammals",
    "roadsign": "town/roadsigns",
    "tool": "household/tools",
    "vegetable": "food/vegetables",
}
"""The classes and the folders of their objects."""
SCENES: Final = "/usr/share/backgrounds/mate/nature/"
"""Photographs; the other folders hold drawings."""
_DRAWN: Final = ("cartoon", "toys", "plastic")
"""In the names of objects that are no photographs of what the class says."""
_LARGEST: Final = 640
"""Longest side to which sources are reduced first: compositions are small."""
_OPAQUE: Final = 127


def read_objects(deb: Path) -> dict[str, dict[str, Image.Image]]:
    """Cut-out objects with alpha, by class and name."""
    folders = {f"{STAMPS}{folder}/": name for name, folder in CLASSES.items()}
    found: dict[str, dict[str, Image.Image]] = {name: {} for name in CLASSES}
    for path, data in read_deb(deb, lambda name: name.endswith(".png") and name.startswith(tuple(folders))):
        if any(word in path.lower() for word in _DRAWN) or path.endswith("_mirror.png"):
            continue
        image = Image.open(BytesIO(data), formats=("PNG",))
        if image.mode not in ("RGBA", "LA") and "transparency" not in image.info:
            continue
        group = next(name for folder, name in folders.items() if path.startswith(folder))
        found[group][path] = _reduce(image.convert("RGBA"))
    return found


def read_backgrounds(deb: Path) -> dict[str, Image.Image]:
    """Backgrounds by name."""
    files = read_deb(deb, lambda name: name.startswith(SCENES) and name.endswith(".jpg"))
    return {path: _reduce(Image.open(BytesIO(data), formats=("JPEG",)).convert("RGB")) for path, data in files}


def _reduce(image: Image.Image) -> Image.Image:
    image.thumbnail((_LARGEST, _LARGEST), Image.Resampling.LANCZOS)
    return image


def part_sources(names: Sequence[str]) -> dict[str, list[str]]:
    """Which sources serve which part: a quarter, in the order of a hash of the names, is the judge's alone."""
    order = sorted(names, key=lambda name: hashlib.sha256(name.encode()).digest())
    n_val = max(2, round(VAL_SHARE * len(order)))
    return {"val": order[:n_val], "train": order[n_val:]}


def compose_all(objects: Path, backgrounds: Path, into: Path, say: Callable[[str], None]) -> None:
    """Write every composition and its mask below `into`. Raises DataError where a class has too few objects."""
    scenes = read_backgrounds(backgrounds)
    scenes_of = part_sources(list(scenes))
    for group, images in read_objects(objects).items():
        parts = part_sources(list(images))
        if not parts["train"]:
            raise DataError(f"{objects} has {len(images)} objects of the class {group}: too few.")
        for part, n in COUNTS.items():
            folder = into / part / group
            folder.mkdir(parents=True)
            for number in range(n):
                thing = images[parts[part][number % len(parts[part])]]
                picture, mask = compose(thing, [scenes[name] for name in scenes_of[part]], f"{part}/{group}/{number}")
                picture.save(folder / f"{group}{number:03}.jpg", quality=92)
                mask.save(folder / f"{group}{number:03}{MASK_ENDING}")
        say(f"composed {group}: {len(images)} objects, {len(parts['val'])} of them the judge's")


def compose(thing: Image.Image, scenes: Sequence[Image.Image], name: str) -> tuple[Image.Image, Image.Image]:
    """One object on a crop of one background, and its mask, 0 or 255; both hang on the name alone."""
    drawn = np.random.default_rng(list(hashlib.sha256(name.encode()).digest()))
    scene = scenes[int(drawn.integers(len(scenes)))]
    width = int(min(scene.size) * drawn.uniform(0.3, 0.9))
    left, top = (int(drawn.integers(0, side - width + 1)) for side in scene.size)
    ground = scene.crop((left, top, left + width, top + width)).resize((SIDE, SIDE), Image.Resampling.LANCZOS)
    turned = _turn(thing, drawn)
    layer = Image.new("RGBA", (SIDE, SIDE))
    layer.paste(turned, (_place(turned.width, drawn), _place(turned.height, drawn)))
    picture = Image.alpha_composite(ground.convert("RGBA"), layer).convert("RGB")
    return picture, layer.getchannel("A").point(lambda alpha: 255 * (alpha > _OPAQUE))


def _turn(thing: Image.Image, drawn: np.random.Generator) -> Image.Image:
    """Scaled to 55 to 95 % of the composition, perhaps mirrored, turned by at most 20 degrees."""
    scale = drawn.uniform(0.55, 0.95) * SIDE / max(thing.size)
    width, height = (max(8, int(side * scale)) for side in thing.size)
    turned = thing.resize((width, height), Image.Resampling.LANCZOS)
    if drawn.random() < 0.5:
        turned = turned.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return turned.rotate(drawn.uniform(-20, 20), expand=True, resample=Image.Resampling.BICUBIC)


def _place(side: int, drawn: np.random.Generator) -> int:
    """Where an object begins: anywhere inside, or around the middle where it is larger than the composition."""
    low, high = sorted((0, SIDE - side))
    return int(drawn.integers(low, high + 1))
