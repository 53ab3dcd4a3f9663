"""The suite `folder`: models and images of one's own, in class folders."""

from __future__ import annotations

from typing import Annotated, ClassVar, Final

from pydantic import AfterValidator, Field

import amb
from amb_suites.class_folders import ClassFolders
from amb_suites.datasets import DataSet, safe_folder
from amb_suites.real import ItemsByRole, RealSuite

SHARES: Final = {"owner": 0.5, "attacker": 0.3, "trigger": 0.2}
"""Of the training images."""
TEST_SHARE: Final = 0.2
"""Of all images, where the data has no test part of its own."""


class FolderSuite(RealSuite):
    """A model of your own, innocent models of your own, and a folder of class folders under the data root.

    The folder holds one folder of images for each class, or `train` and `val` (or `test`) of such folders: then test
    images come from `val` alone. Siblings are made of your own model; a class of negatives that you do not name is `other`.

    Masks, with which segmentation is learnt and measured, lie beside the images as `rose_mask.png` beside `rose.jpg`, or in
    a folder `masks` with the same folders and names (`masks/train/flowers/rose.png`): one channel of 8 bits with the number
    of each pixel's class, 0 for the background. Of two classes they may have 0 and 255 as well.
    """

    name: ClassVar[str] = "folder"

    model: str
    """Reference of the model to protect, such as `file/my/model` or `timm/vit_base_patch16_224.mae`."""
    data: Annotated[str, AfterValidator(safe_folder)]
    """Folder of images under the data root (`--data`)."""
    negatives: str = "none"
    """Innocent models: references joined by `;`, each followed by `|CLASS` where its class is known; `none` for none.
    Quote it for the shell."""

    mask_classes: int = Field(0, ge=0, le=255)
    """How many classes the masks have, background included; 0 where there are none."""

    def data_sets(self) -> list[DataSet]:
        return [ClassFolders(self.data, self.mask_classes)]

    def share_out(self) -> ItemsByRole:
        from amb_suites.images import cut

        index = ClassFolders(self.data, self.mask_classes).index(self.empty_classes)
        train, test = index.parts["train"], index.parts.get("test", ())
        if not test:
            parted = cut(train, self.seed, {"test": TEST_SHARE, "train": 1 - TEST_SHARE})
            train, test = parted["train"], parted["test"]
        given = {**cut(train, self.seed, SHARES), **cut(test, self.seed, {"test": 1.0})}
        roles: tuple[amb.Role, ...] = ("owner", "attacker", "trigger", "test")
        return {role: (index, given[role]) for role in roles}
