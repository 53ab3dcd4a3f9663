"""Class folders, the form of ImageNet and of most data of one's own: one folder for each class, perhaps in train and val."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Final

from amb_suites.datasets import DataError, DataSet, Empty, Files, Index, Item, Part, one_form

ENDINGS: Final = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif"})
"""Files with other endings are not looked at."""
PARTS: Final[Mapping[str, Part]] = {"train": "train", "test": "test", "val": "test", "validation": "test"}
"""Folders of a data set's own split; of several for one part the first counts."""


NO_CLASSES: Final = "images"
"""The class of images that lie in no class folder."""
MASK_FOLDER: Final = "masks"
"""A tree of masks beside that of the images: the same folders, the same names, `.png`."""
MASK_ENDING: Final = "_mask.png"
"""Of a mask beside its image: `rose.jpg` has `rose_mask.png`."""


@dataclass(frozen=True)
class ClassFolders(DataSet):
    """Any folder of class folders under the data root."""

    folder: str
    mask_classes: int = 0
    """Classes of the masks, background included; 0 where there are none."""
    title: ClassVar[str] = "The folder of images"
    expected: ClassVar[str] = (
        "one folder for each class with its images, or train/ and val/ (or test/) of such folders, or images alone"
    )
    source: ClassVar[str] = "your own disk"
    how: ClassVar[str] = "Put it there, or a link to it."
    size: ClassVar[int | None] = None

    def is_there(self, at: Path) -> bool:
        return at.is_dir() and any(not entry.name.startswith(".") for entry in at.iterdir())

    def read(self, at: Path, empty: Empty) -> Index:
        listed = list_classes(at, parts_of(at), empty, with_masks=bool(self.mask_classes))
        index = replace(listed, title=self.folder, upright=True)
        return add_masks(index, at, self.mask_classes) if self.mask_classes else index


def add_masks(index: Index, at: Path, n_classes: int) -> Index:
    """The same images, each with its mask: beside it, or in the tree of masks. Raises DataError where one has none.

    Photographs are not turned upright then: masks go by the pixels as they lie there.
    """
    parts = {
        part: tuple(item._replace(mask=_find_mask(at, item.name)) for item in items)
        for part, items in index.parts.items()
    }
    return replace(index, parts=parts, n_mask_classes=n_classes, upright=False)


def _find_mask(at: Path, image: str) -> str:
    stem = image.rpartition(".")[0]
    for name in (stem + MASK_ENDING, f"{MASK_FOLDER}/{stem}.png"):
        if (at / name).is_file():
            return name
    raise DataError(
        f"{at / image} has no mask: expected is {stem.rpartition('/')[2]}{MASK_ENDING} beside it, or {MASK_FOLDER}/{stem}.png. "
        "Add it, or do without masks: mask_classes=0."
    )


def parts_of(at: Path) -> dict[Part, str]:
    """The folders of the data set's own split; itself as `train` where it has none."""
    found: dict[Part, str] = {}
    for name, part in PARTS.items():
        if (at / name).is_dir():
            found.setdefault(part, name)
    return found if "train" in found else {"train": ""}


def list_classes(at: Path, parts: Mapping[Part, str], empty: Empty, *, with_masks: bool = False) -> Index:
    """Every image in the class folders of each part, masks left out. Raises DataError for a class without images, unless dropped."""
    listed = {part: _list_by_class(at, folder, with_masks) for part, folder in parts.items()}
    bare = [
        f"{parts[part]}/{name}".lstrip("/") for part, classes in listed.items() for name in classes if not classes[name]
    ]
    if bare and empty == "refuse":
        raise DataError(
            f"{at}: {_name_some(bare)} {'has' if len(bare) == 1 else 'have'} no images. "
            "Fill or remove what is empty, or leave it out: empty_classes=drop."
        )
    names = sorted({name for classes in listed.values() for name, images in classes.items() if images})
    items = {
        part: tuple(Item(image, label) for label, name in enumerate(names) for image in classes.get(name, []))
        for part, classes in listed.items()
    }
    for part, found in items.items():
        if not found:
            raise DataError(f"{at / parts[part]} has no images in class folders. Expected: one folder for each class.")
    return Index(at.name, Files(at), tuple(names), items)


def _list_by_class(at: Path, folder: str, with_masks: bool) -> dict[str, list[str]]:
    """The images of each class in a part; folders whose names differ in Unicode's form alone are one class.

    Images that lie there without any class folder are all of one class, from which nothing can be learnt of classes.
    """
    folders = [name for name in _list_folders(at / folder) if not (with_masks and name == MASK_FOLDER)]
    if not folders and (images := _list_images(at, folder, with_masks)):
        return {NO_CLASSES: images}
    found: dict[str, list[str]] = {}
    for name in folders:
        found.setdefault(one_form(name), []).extend(_list_images(at, f"{folder}/{name}".lstrip("/"), with_masks))
    return found


def _list_folders(at: Path) -> list[str]:
    """Its folders, hidden ones apart, sorted, for a disk lists them as it likes."""
    with os.scandir(at) as entries:
        return sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))


def _list_images(at: Path, folder: str, with_masks: bool) -> list[str]:
    """Names of the images in a class folder, however deep, relative to the data set."""
    found = []
    for place, inner, files in os.walk(at / folder, onerror=_raise_error):
        inner[:] = [name for name in inner if not name.startswith(".")]
        images = [name for name in files if is_image(name) and not (with_masks and name.endswith(MASK_ENDING))]
        found += [Path(place, name).relative_to(at).as_posix() for name in images]
    return sorted(found)


def is_image(name: str) -> bool:
    """Whether a file is an image by its ending; `._x.jpg` is what macOS leaves beside one."""
    return not name.startswith(".") and f".{name.rpartition('.')[2].lower()}" in ENDINGS


def _name_some(names: list[str], shown: int = 3) -> str:
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more


def _raise_error(error: OSError) -> None:
    raise error
