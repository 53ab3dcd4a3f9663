"""E-commerce Product Images, 18,175 images of 9 classes, as published: `ECOMMERCE_PRODUCT_IMAGES/{train,val}/<CLASS>/*`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from amb_suites.class_folders import list_classes, parts_of
from amb_suites.datasets import DataSet, Empty, Index


class Ecommerce(DataSet):
    """Train and val as published; `check`, a third folder of the archive, serves nobody."""

    title: ClassVar[str] = "E-commerce Product Images"
    expected: ClassVar[str] = "ECOMMERCE_PRODUCT_IMAGES/{train,val}/<CLASS>/*, or {train,val}/<CLASS>/*"
    source: ClassVar[str] = "https://www.kaggle.com/datasets/fatihkgg/ecommerce-product-images-18k"
    how: ClassVar[str] = (
        "Kaggle wants an account: kaggle datasets download fatihkgg/ecommerce-product-images-18k --unzip -p ROOT/ecommerce."
    )
    size: ClassVar[int | None] = None
    folder = "ecommerce"

    def is_there(self, at: Path) -> bool:
        return (_find_folder(at) / "train").is_dir()

    def read(self, at: Path, empty: Empty) -> Index:
        within = _find_folder(at)
        return replace(list_classes(within, parts_of(within), empty), title=self.title)


def _find_folder(at: Path) -> Path:
    inner = at / "ECOMMERCE_PRODUCT_IMAGES"
    return inner if inner.is_dir() else at
