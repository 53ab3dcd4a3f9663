"""Images of data sets on disk: who gets which, whether they are in order, and their pixels as an `amb.api.data.Split`."""

from __future__ import annotations

import hashlib
import logging
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from itertools import accumulate
from typing import Final, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as geometry

from amb import Batch
from amb_suites.datasets import DataError, Index, Item, one_form

FORMATS: Final = ("JPEG", "PNG", "WEBP", "BMP", "GIF")
"""What is decoded, whatever a file is called; Pillow would hand some other formats to outside programs."""
_ORIENTATION: Final = 0x0112
"""EXIF's tag of how a camera was held."""
_TURNS: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_BROKEN: Final = (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError)
MOST_PIXELS: Final = 89_478_485
"""From which on Pillow warns of a decompression bomb: a quarter of a gigabyte."""
_DEEP: Final = ("I", "F")  # modes of more than 8 bits a channel begin with these
_AT_ONCE: Final = 64  # images that one thread checks in a row


class Checked(NamedTuple):
    """An image that was looked at: its size in bytes, its mode, and what is wrong with it."""

    item: Item
    size: int = 0
    mode: str = "RGB"
    problem: str = ""


@dataclass(frozen=True)
class RoleImages:
    """The images of one role."""

    index: Index
    images: tuple[Checked, ...]
    skipped: tuple[Checked, ...] = ()

    def describe(self) -> dict[str, str | int]:
        """What tells these images from others, for a suite's definition."""
        rows = [f"{one_form(each.item.name)}\0{each.item.label}\0{each.size}" for each in self.images]
        digest = hashlib.sha256("\n".join([self.index.digest(), *rows]).encode(errors="surrogateescape")).hexdigest()
        return {"files": len(self.images), "skipped": len(self.skipped), "digest": digest[:32]}


class ImageSplit:
    """The images of one role as an `amb.api.data.Split`; read when they are asked for, nothing is kept."""

    def __init__(self, served: RoleImages, size: int) -> None:
        self.served, self.size = served, size
        self.n_classes = len(served.index.classes)
        self.n_mask_classes = served.index.n_mask_classes

    def __len__(self) -> int:
        return len(self.served.images)

    def batch(self, indices: Sequence[int]) -> Batch:
        """The images at `indices`."""
        items = [self.served.images[int(place)].item for place in indices]
        index = self.served.index
        images = [
            self._load_image(*pair) for pair in zip(items, _read_all(index, [item.name for item in items]), strict=True)
        ]
        names = [item.mask for item in items if item.mask]
        wholes = (
            [_load_mask(index, *pair) for pair in zip(items, _read_all(index, names), strict=True)] if names else []
        )
        labels = [dominant(wholes[at]) if item.label is None else item.label for at, item in enumerate(items)]
        masks = torch.stack([self._fit_mask(whole) for whole in wholes]) if wholes else None  # (n, size, size)
        return Batch(torch.stack(images), torch.tensor(labels, dtype=torch.int64), masks)

    def _load_image(self, item: Item, data: bytes) -> Tensor:
        """Shorter side to `size`, bicubic, then the square in the middle; (3, size, size) in [0, 1]."""
        try:
            picture = decode(data, upright=self.served.index.upright)
        except _BROKEN as error:
            raise DataError(_explain_late(self.served.index, item.name, error)) from None
        square = geometry.center_crop(geometry.resize(picture, self.size, InterpolationMode.BICUBIC), [self.size] * 2)
        return torch.from_numpy(np.array(square)).permute(2, 0, 1).float() / 255

    def _fit_mask(self, mask: np.ndarray) -> Tensor:
        """The geometry of the image by nearest neighbour, (size, size) int64."""
        picture = Image.fromarray(mask)
        square = geometry.center_crop(geometry.resize(picture, self.size, InterpolationMode.NEAREST), [self.size] * 2)
        return torch.from_numpy(np.array(square)).long()


def decode(data: bytes, upright: bool = False) -> Image.Image:
    """An image in RGB, of an animation the first. Grey is repeated, CMYK converted, alpha dropped.

    `upright` turns a photograph as its EXIF orientation says, which viewers do and torchvision's data sets do not.
    """
    with Image.open(BytesIO(data), formats=FORMATS) as image:
        _refuse_odd(image)
        turn = _TURNS.get(_read_orientation(image)) if upright else None
        is_see_through = image.mode == "P" and "transparency" in image.info
        picture = (image.convert("RGBA") if is_see_through else image).convert("RGB")
    return picture if turn is None else picture.transpose(turn)


def _read_orientation(image: Image.Image) -> int:
    """As EXIF has it, 1 where it says nothing that can be read: a broken tag is no broken picture."""
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # noqa: BLE001 (struct.error, SyntaxError, TypeError and others were seen)
        return 1


def dominant(mask: np.ndarray) -> int:
    """The class other than 0 that covers the most pixels; 0 where nothing else is there."""
    counts = np.bincount(mask.ravel())
    return 0 if len(counts) < 2 or not counts[1:].any() else int(counts[1:].argmax()) + 1


def cut(items: Sequence[Item], seed: int, shares: Mapping[str, float]) -> dict[str, list[Item]]:
    """Shuffle by a hash of seed and name, then cut by shares: the same on every machine, in whatever order files are listed."""
    order = sorted(
        items,
        key=lambda item: hashlib.sha256(f"{seed}\0{one_form(item.name)}".encode(errors="surrogateescape")).digest(),
    )
    edges = [round(edge * len(order)) for edge in accumulate(shares.values(), initial=0.0)]
    return {role: order[edges[at] : edges[at + 1]] for at, role in enumerate(shares)}


def serve(index: Index, role: str, items: Sequence[Item], n: int, skip_broken: bool) -> RoleImages:
    """The first `n` images that are in order, all of them looked at. Raises DataError for one that is not, unless skipped.

    One that is skipped makes room for the next, so what is chosen hangs on the files alone, not on when one is found.
    """
    good: list[Checked] = []
    skipped: list[Checked] = []
    rest = list(items)
    while rest and len(good) < n:
        tried, rest = rest[: n - len(good)], rest[n - len(good) :]
        checked = _check_all(index, tried)
        good += [each for each in checked if not each.problem]
        skipped += [each for each in checked if each.problem]
        if skipped and not skip_broken:
            raise DataError(_explain_broken(index, skipped))
    if not good:
        raise DataError(f"{index.title} leaves no image for the role {role}. Add images, or ask for fewer.")
    _log_oddities(index, role, good, skipped)
    return RoleImages(index, tuple(good), tuple(skipped))


def _check_all(index: Index, items: Sequence[Item]) -> list[Checked]:
    """Look at images in the order in which they lie on disk, several at a time; the answers in the order of `items`."""
    places = sorted(range(len(items)), key=lambda place: _sort_naturally(items[place].name))
    chunks = [places[at : at + _AT_ONCE] for at in range(0, len(places), _AT_ONCE)]
    found: dict[int, Checked] = {}
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        for chunk, checked in zip(
            chunks,
            pool.map(partial(_check_some, index), [[items[at] for at in chunk] for chunk in chunks]),
            strict=True,
        ):
            found.update(zip(chunk, checked, strict=True))
    return [found[place] for place in range(len(items))]


def _check_some(index: Index, items: Sequence[Item]) -> list[Checked]:
    images = index.reader.read([item.name for item in items])
    masks = iter(index.reader.read([item.mask for item in items if item.mask]))
    return [
        _check_one(index, item, data, next(masks) if item.mask else None)
        for item, data in zip(items, images, strict=True)
    ]


def _check_one(index: Index, item: Item, data: bytes | OSError, mask: bytes | OSError | None) -> Checked:
    try:
        mode, size = look_at(data)
        if mask is not None:
            _require_fit(size, _decode_mask(mask, index), index)
    except _BROKEN as error:
        return Checked(item, problem=_explain_error(error))
    n_bytes = sum(len(part) for part in (data, mask) if isinstance(part, bytes))
    return Checked(item, n_bytes, mode)


def look_at(data: bytes | OSError) -> tuple[str, tuple[int, int]]:
    """Mode and size of an image whose header and end are whole; the pixels are decoded only where that is the only way."""
    if isinstance(data, OSError):
        raise data
    with Image.open(BytesIO(data), formats=FORMATS) as image:
        _refuse_odd(image)
        mode, size = image.mode, image.size
        if image.format == "PNG":
            image.verify()  # reads every checksum
        elif image.format != "JPEG" or b"\xff\xd9" not in data[-1024:]:  # a whole JPEG ends so, or nearly
            image.load()
    return mode, size


def _decode_mask(data: bytes | OSError, index: Index) -> np.ndarray:
    """The numbers in a mask file, (height, width) uint8. Raises OSError where it is another kind of image.

    Black and white are the two classes where there are two.
    """
    if isinstance(data, OSError):
        raise OSError(f"its mask: {_explain_error(data)}")
    with closing(Image.open(BytesIO(data), formats=("PNG", "BMP"))) as mask:
        if mask.mode not in ("L", "P", "1"):
            raise OSError(f"its mask has the mode {mask.mode}; a mask has one channel of 8 bits")
        numbers = np.array(mask, dtype=np.uint8)
    is_black_and_white = index.n_mask_classes == 2 and not index.mask_offset and np.isin(numbers, (0, 255)).all()
    return numbers // 255 if is_black_and_white else numbers


def _require_fit(size: tuple[int, int], mask: np.ndarray, index: Index) -> None:
    height, width = mask.shape
    if (width, height) != size:
        raise OSError(f"its mask is {width} x {height} pixels, the image {size[0]} x {size[1]}")
    low, high = int(mask.min()) - index.mask_offset, int(mask.max()) - index.mask_offset
    if low < 0 or high >= index.n_mask_classes:
        has = f"{mask.min()} to {mask.max()}"
        last = index.n_mask_classes + index.mask_offset - 1
        raise OSError(f"its mask has the numbers {has}; the classes are {index.mask_offset} to {last}")


def _load_mask(index: Index, item: Item, data: bytes) -> np.ndarray:
    try:
        return _decode_mask(data, index) - np.uint8(index.mask_offset)
    except _BROKEN as error:
        raise DataError(_explain_late(index, item.mask or item.name, error)) from None


def _read_all(index: Index, names: Sequence[str]) -> Iterator[bytes]:
    for name, data in zip(names, index.reader.read(names), strict=True):
        if isinstance(data, OSError):
            raise DataError(_explain_late(index, name, data))
        yield data


def _refuse_odd(image: Image.Image) -> None:
    if (n := image.width * image.height) > MOST_PIXELS:
        raise OSError(f"it has {n:,} pixels, more than {MOST_PIXELS:,}")
    if image.mode.startswith(_DEEP):
        raise OSError(f"mode {image.mode}: more than 8 bits a channel")


def _sort_naturally(name: str) -> tuple[str, int, str]:
    """Rows of a parquet file by number, files by name."""
    file, _, rest = name.partition("#")
    row, _, column = rest.partition("#")
    return file, int(row or 0), column


def _explain_broken(index: Index, broken: Sequence[Checked]) -> str:
    first = broken[0]
    more = f", and {len(broken) - 1} more are broken" if len(broken) > 1 else ""
    return (
        f"{index.title}: {first.item.name}: {first.problem}{more}. "
        "Repair or remove what is broken, or leave it out: broken=skip."
    )


def _explain_late(index: Index, name: str, error: Exception) -> str:
    return f"{index.title}: {name} was in order when the run began and is not now: {_explain_error(error)}. Repair it, run again."


def _explain_error(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "is not there"
    text = getattr(error, "strerror", None) or " ".join(str(error).split())
    return "is no image that can be read" if "cannot identify image" in text else text[:200]


def _log_oddities(index: Index, role: str, good: Sequence[Checked], skipped: Sequence[Checked]) -> None:
    """One line for whoever looks, where there is something to say; shown on standard error."""
    others = Counter(each.mode for each in good if each.mode != "RGB")
    parts = []
    if skipped:
        parts.append(f"{len(skipped)} broken images skipped, the first {skipped[0].item.name} ({skipped[0].problem})")
    if others:
        modes = ", ".join(f"{n} {mode}" for mode, n in sorted(others.items()))
        parts.append(f"{others.total()} of {len(good)} images converted to RGB ({modes})")
    if parts:
        logging.getLogger("amb_suites").warning("%s, %s: %s", index.title, role, "; ".join(parts))
