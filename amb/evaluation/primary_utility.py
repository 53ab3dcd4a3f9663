"""What a model is worth, in one figure, and what share of it an attack took: the validity gate of robustness."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

FIGURES: Final = (("head_accuracy", "acc"), ("head_miou", "mIoU"), ("probe", "probe"), ("knn", "kNN"))
"""The model's own task head where it has one, else the probe of its embedding; with the word that tables use."""


def primary_utility(utility: Mapping[str, float]) -> tuple[str, float] | None:
    """Which figure says best what a model is worth, and the figure."""
    return next(((short, utility[name]) for name, short in FIGURES if name in utility), None)


def utility_drop(before: Mapping[str, float], after: Mapping[str, float]) -> float | None:
    """Share of a model's worth that is gone, 0..1, negative where it gained; None where no figure is in both.

    By the first of FIGURES that both have: an attacked model with a head for the task that the protected one had is
    measured on that task, any other by the probe of its embedding.
    """
    for name, _ in FIGURES:
        if name in before and name in after and before[name] > 0:
            return 1 - after[name] / before[name]
    return None
