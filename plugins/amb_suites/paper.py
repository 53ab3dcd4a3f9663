"""The suites `paper-clip` and `paper-dinov2`: the paper's models, its data, and what can be said of its protocol."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import ClassVar, Final, Literal

from amb_suites.datasets import DataSet
from amb_suites.ecommerce import Ecommerce
from amb_suites.foodseg import FoodSeg103
from amb_suites.imagenet import ImageNet
from amb_suites.pet import Pet
from amb_suites.real import ItemsByRole, RealSuite

CLIP: Final = "open_clip/ViT-L-14/openai"
DINOV2: Final = "hf/facebook/dinov2-large"
OTHERS: Final = (
    "hf/facebook/dinov2-with-registers-large|registers;timm/vit_large_patch16_224.mae|other-family-other-data"
)
TASKS: Final[Mapping[str, Callable[[], DataSet]]] = {"pet": Pet, "ecommerce": Ecommerce, "foodseg103": FoodSeg103}
"""The paper's downstream data."""
IMAGENET_SHARES: Final = {"owner": 0.8, "trigger": 0.2}
DOWNSTREAM_SHARES: Final = {"attacker": 0.8, "test": 0.2}
"""Where a downstream set has no test part."""


class PaperSuite(RealSuite):
    """Base of the paper's suites, which differ in who owns what."""

    source: ClassVar[str] = "Chistyakova and Pautov 2025, arXiv 2510.04966, section 4"

    task: Literal["pet", "ecommerce", "foodseg103"] = "pet"
    """Downstream data, on which attackers fine-tune and utility is measured; E-commerce has no masks."""

    def data_sets(self) -> list[DataSet]:
        return [ImageNet(), TASKS[self.task]()]

    def share_out(self) -> ItemsByRole:
        from amb_suites.images import cut

        imagenet, downstream = (data_set.index(self.empty_classes) for data_set in self.data_sets())
        ours = cut(imagenet.parts["train"], self.seed, IMAGENET_SHARES)
        if "test" in downstream.parts:
            parts = {"attacker": downstream.parts["train"], "test": downstream.parts["test"]}
            theirs = {role: cut(items, self.seed, {role: 1.0})[role] for role, items in parts.items()}
        else:
            theirs = cut(downstream.parts["train"], self.seed, DOWNSTREAM_SHARES)
        return {
            "owner": (imagenet, ours["owner"]),
            "trigger": (imagenet, ours["trigger"]),
            "attacker": (downstream, theirs["attacker"]),
            "test": (downstream, theirs["test"]),
        }


class PaperClipSuite(PaperSuite):
    """The paper's experiments on CLIP ViT-L/14: owner's images and triggers from ImageNet, attacks on downstream data.

    Known of the paper's protocol: models and data sets, 32 bits, τ = 5, fine-tuning of all layers with AdamW under
    three schedules for classification and without one for segmentation, pruning of 20 % and 40 %, negatives of
    another family and with registers. Not known: the number of triggers and of images, learning rates, epochs and
    batch sizes, resolution, splits, and how FoodSeg103, whose images show several ingredients, is classified. The
    authors' later paper has 1,000 triggers.
    """

    name: ClassVar[str] = "paper-clip"

    model: str = CLIP
    """Reference of the model to protect."""
    negatives: str = f"{DINOV2}|other-family-other-data;{OTHERS}"
    """Innocent models: references joined by `;`, each followed by `|CLASS` where its class is known; `none` for none.
    Quote it for the shell."""


class PaperDinoSuite(PaperSuite):
    """The paper's experiments on DINOv2 ViT-L/14: owner's images and triggers from ImageNet, attacks on downstream data.

    What is known of the paper's protocol, and what is not, is as for `paper-clip`.
    """

    name: ClassVar[str] = "paper-dinov2"

    model: str = DINOV2
    """Reference of the model to protect."""
    negatives: str = f"{CLIP}|other-family-other-data;{OTHERS}"
    """Innocent models: references joined by `;`, each followed by `|CLASS` where its class is known; `none` for none.
    Quote it for the shell."""
