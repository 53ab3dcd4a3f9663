"""ImageNet (ILSVRC 2012) as class folders: `train/<wnid>/*.JPEG`, or `val/<wnid>/*.JPEG` where there is no train."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import ClassVar, Final

from amb_suites.class_folders import list_classes
from amb_suites.datasets import DataSet, Empty, Index

_WITHIN: Final = ("", "ILSVRC/Data/CLS-LOC")  # Kaggle's archive has it deeper


class ImageNet(DataSet):
    """One part serves: train, or else val."""

    title: ClassVar[str] = "ImageNet (ILSVRC 2012)"
    expected: ClassVar[str] = "train/<wnid>/*.JPEG, or val/<wnid>/*.JPEG"
    source: ClassVar[str] = "https://image-net.org/download-images"
    how: ClassVar[str] = (
        "Its licence wants an account: get ILSVRC2012_img_train.tar from https://image-net.org/download-images and unpack "
        "each class into a folder of its own; it is never fetched by itself."
    )
    size: ClassVar[int | None] = 147_897_477_120
    folder = "imagenet"

    def is_there(self, at: Path) -> bool:
        return _find_part(at) is not None

    def read(self, at: Path, empty: Empty) -> Index:
        part = _find_part(at) or at
        index = list_classes(at, {"train": part.relative_to(at).as_posix()}, empty)
        return replace(index, title=self.title)


def _find_part(at: Path) -> Path | None:
    places = (at / within / part for within in _WITHIN for part in ("train", "val"))
    return next((place for place in places if place.is_dir()), None)
