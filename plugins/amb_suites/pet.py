"""Oxford-IIIT Pet: 37 breeds with trimaps, in the folders of its two archives, as torchvision lays them out."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar, Final

from amb_suites.datasets import DataError, DataSet, Empty, Files, Index, Item, Part, plain_name

LISTS: Final[dict[Part, str]] = {"train": "trainval", "test": "test"}
MASK_CLASSES: Final = ("foreground", "background", "border")
"""The trimap's 1, 2 and 3, counted from 0."""


class Pet(DataSet):
    """Trainval and test as published; labels as torchvision's `OxfordIIITPet` has them."""

    title: ClassVar[str] = "Oxford-IIIT Pet"
    expected: ClassVar[str] = "images/*.jpg, annotations/{trainval,test}.txt and annotations/trimaps/*.png"
    source: ClassVar[str] = "https://www.robots.ox.ac.uk/~vgg/data/pets/"
    how: ClassVar[str] = (
        "Unpack images.tar.gz and annotations.tar.gz from https://www.robots.ox.ac.uk/~vgg/data/pets/ there."
    )
    size: ClassVar[int | None] = 811_000_000
    fetchable: ClassVar[bool] = True
    folder = "oxford-iiit-pet"

    def is_there(self, at: Path) -> bool:
        return (at / "images").is_dir() and all(
            (at / "annotations" / f"{name}.txt").is_file() for name in LISTS.values()
        )

    def read(self, at: Path, empty: Empty) -> Index:
        rows = {part: list(_read_rows(at / "annotations" / f"{name}.txt")) for part, name in LISTS.items()}
        breeds = {label: name.rpartition("_")[0] for listed in rows.values() for name, label in listed}
        if gaps := set(range(max(breeds, default=0))) - set(breeds):
            raise DataError(f"{at}: no image of class {min(gaps) + 1} is listed, though there are higher ones.")
        items = {part: tuple(_make_item(name, label) for name, label in listed) for part, listed in rows.items()}
        classes = tuple(breeds[label].replace("_", " ").title() for label in sorted(breeds))
        return Index(self.title, Files(at), classes, items, len(MASK_CLASSES), mask_offset=1)

    def download(self, at: Path) -> None:
        from torchvision.datasets import OxfordIIITPet

        OxfordIIITPet(at.parent, download=True)


def _read_rows(listed: Path) -> Iterator[tuple[str, int]]:
    """Name and class, from 0, of each line `name class species breed`."""
    for number, line in enumerate(listed.read_text(encoding="utf-8").splitlines(), 1):
        if line.strip() and not line.startswith("#"):
            name, _, rest = line.strip().partition(" ")
            label = rest.partition(" ")[0]
            if not label.isdecimal() or int(label) < 1:
                raise DataError(
                    f"{listed}, line {number}: expected is 'name class species breed', not '{line.strip()}'."
                )
            yield plain_name(name, listed), int(label) - 1


def _make_item(name: str, label: int) -> Item:
    return Item(f"images/{name}.jpg", label, f"annotations/trimaps/{name}.png")
