"""FoodSeg103: 7,118 images with masks of 103 ingredients, as first released or as parquet files from the Hugging Face hub."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Final

from amb_suites.class_folders import is_image
from amb_suites.datasets import DataError, DataSet, Empty, Files, Index, Item, Part

N_CLASSES: Final = 104
"""Background, which is 0, and the ingredients."""
REPO: Final = "EduardoPacheco/FoodSeg103"
_SHARDS: Final[dict[Part, tuple[str, ...]]] = {"train": ("train-*",), "test": ("validation-*", "test-*")}


class FoodSeg103(DataSet):
    """Train and test as published; the hub calls the test part validation. The label is the ingredient with most pixels."""

    title: ClassVar[str] = "FoodSeg103"
    expected: ClassVar[str] = "Images/{img_dir,ann_dir}/{train,test}/, or data/{train,validation}-*.parquet"
    source: ClassVar[str] = f"https://huggingface.co/datasets/{REPO}"
    how: ClassVar[str] = f"hf download {REPO} --repo-type dataset --local-dir ROOT/foodseg103."
    size: ClassVar[int | None] = 1_250_000_000
    fetchable: ClassVar[bool] = True
    folder = "foodseg103"

    def is_there(self, at: Path) -> bool:
        return _find_release(at) is not None or any(at.glob("data/train-*.parquet"))

    def read(self, at: Path, empty: Empty) -> Index:
        released = _find_release(at)
        if released:
            parts = {part: _list_pairs(released, part) for part in _SHARDS}
            return Index(self.title, Files(released), _read_classes(released), parts, N_CLASSES)
        from amb_suites.parquet import Shards, rows

        found = {part: sorted(path for name in names for path in (at / "data").glob(f"{name}.parquet"))
                 for part, names in _SHARDS.items()}  # fmt: skip
        items = {part: tuple(rows(at, paths, "image", "label")) for part, paths in found.items() if paths}
        return Index(self.title, Shards(at), tuple(str(number) for number in range(N_CLASSES)), items, N_CLASSES)

    def download(self, at: Path) -> None:
        from huggingface_hub import snapshot_download

        snapshot_download(REPO, repo_type="dataset", local_dir=at, allow_patterns=["data/*.parquet"])


def _find_release(at: Path) -> Path | None:
    """The folder that holds `Images`; the archive has one more around it."""
    return next((place for place in (at, at / "FoodSeg103") if (place / "Images/img_dir").is_dir()), None)


def _list_pairs(at: Path, part: Part) -> tuple[Item, ...]:
    """Every image of a part with its mask of the same name."""
    images, masks = Path("Images/img_dir", part), Path("Images/ann_dir", part)
    names = sorted(path.name for path in (at / images).iterdir() if is_image(path.name))
    if not names:
        raise DataError(f"{at / images} has no images.")
    return tuple(
        Item((images / name).as_posix(), None, (masks / name).with_suffix(".png").as_posix()) for name in names
    )


def _read_classes(at: Path) -> tuple[str, ...]:
    """The names in category_id.txt, one `number<TAB>name` a line; numbers where it is not there."""
    named = {}
    for path in (at / "category_id.txt", at / "Images/category_id.txt"):
        lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
        for number, _, name in (line.strip().partition("\t") for line in lines):
            if number.isdecimal():
                named[int(number)] = name.strip()
    return tuple(named.get(number, str(number)) for number in range(N_CLASSES))
