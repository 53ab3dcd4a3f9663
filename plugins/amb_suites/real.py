"""What the suites on data of one's own disk share: their parameters, innocent models, and how images become splits."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from pydantic import Field, field_validator

import amb
from amb import Fetch, data_root
from amb_suites.datasets import DataSet, Empty, Index, Item

if TYPE_CHECKING:
    from amb import Split, VisionModel
    from amb_suites.images import RoleImages

UNKNOWN: Final = "other"
"""Class of a negative of which nothing is said."""
ItemsByRole = Mapping[amb.Role, tuple[Index, Sequence[Item]]]
"""The images of each role in the order in which they are taken."""


class RealSuite(amb.Suite):
    """Base of suites on images that lie under the data root."""

    model: str
    """Reference of the model to protect."""
    negatives: str
    """Innocent models: references joined by `;`, each followed by `|CLASS` where its class is known; `none` for none.
    Quote it for the shell."""
    image_size: int = Field(224, ge=8, le=1024)
    """Side of the images in pixels: the shorter side is resized to it, bicubic, then the middle is cut out."""
    n_images: int = Field(8192, ge=1)
    """Most images of a role; fewer where the data set has fewer."""
    seed: int = Field(0, ge=0)
    """Seed by which images are shared out among the roles; the same at every seed of a run."""
    broken: Literal["refuse", "skip"] = "refuse"
    """What to do with an image that cannot be read, or does not fit its mask. A skipped one is counted and replaced."""
    empty_classes: Empty = "refuse"
    """What to do with a class folder that has no images: stop, or leave the class out."""
    n_probe: int = Field(1024, ge=2)
    """The attacker's images on which the probes of utility are fitted."""
    n_test: int = Field(1024, ge=1)
    """Test images on which they are scored."""

    @field_validator("negatives")
    @classmethod
    def _check_negatives(cls, text: str) -> str:
        for ref, group in _parse_negatives(text):
            if "/" not in ref or not group or "|" in group:
                raise ValueError("is references joined by ';', each perhaps with '|CLASS', or 'none'")
        return text

    @abstractmethod
    def data_sets(self) -> Sequence[DataSet]:
        """What has to lie under the data root."""

    @abstractmethod
    def share_out(self) -> ItemsByRole:
        """Which images each role may draw from."""

    def owner(self) -> str:
        return self.model

    def independents(self) -> Sequence[amb.Independent]:
        return [amb.Independent(ref, group) for ref, group in _parse_negatives(self.negatives)]

    def siblings(self) -> Sequence[amb.Sibling]:
        return [
            amb.Sibling("unmarked owner", "none", "unmarked"),
            amb.Sibling("unmarked owner, fine-tuned", "finetune-constant", "unmarked-finetuned"),
            amb.Sibling("unmarked owner, pruned", "prune40", "unmarked-pruned"),
            amb.Sibling("owner with another key", "overwrite", "other-key"),
        ]

    def perturbations(self) -> Sequence[str]:
        return [
            "prune20",
            "prune40",
            "quantize-bf16",
            "noise:sigma=0.02,draw={}",
            "noise:sigma=0.05,draw={}",
            "prune20+noise:sigma=0.02,draw={}",
        ]

    def fetches(self) -> Sequence[Fetch]:
        return [data_set.fetch() for data_set in self.data_sets()]

    def split(self, role: amb.Role) -> Split:
        from amb_suites.images import ImageSplit

        return ImageSplit(_serve_roles(self, data_root())[role], self.image_size)

    def files(self, role: amb.Role) -> list[str]:
        """Which files serve a role, in the order of its split."""
        return [each.item.name for each in _serve_roles(self, data_root())[role].images]

    def data_facts(self) -> dict[str, Any]:
        """The images that serve each role, so that results on other data never meet. Raises MissingError, DataError."""
        return {role: images.describe() for role, images in _serve_roles(self, data_root()).items()}

    def utility_work(self) -> amb.Work:
        return amb.Work(read=self.n_probe + self.n_test)

    def utility(self, model: VisionModel, ctx: amb.Context) -> Mapping[str, float]:
        from amb import measure_utility

        return measure_utility(model, ctx, self.n_probe, self.n_test)


@lru_cache(maxsize=8)
def _serve_roles(suite: RealSuite, root: Path) -> dict[amb.Role, RoleImages]:
    """Every image that serves a role, looked at once in a process. `root` is where the suite finds its data."""
    from amb_suites.images import serve

    return {
        role: serve(index, role, items, suite.n_images, suite.broken == "skip")
        for role, (index, items) in suite.share_out().items()
    }


def _parse_negatives(text: str) -> list[tuple[str, str]]:
    """References with their classes."""
    if text == "none":
        return []
    pairs = (entry.partition("|") for entry in text.split(";"))
    return [(ref, group if bar else UNKNOWN) for ref, bar, group in pairs]
