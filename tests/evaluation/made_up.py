"""Evidence with so many wrong bits, and negatives of so many sources."""

from __future__ import annotations

import numpy as np

from amb.api.records import Evidence
from amb.evaluation.verdict import Negative


def evidence(wrong: list[int], n_symbols: int = 8, seed: int = 0) -> Evidence:
    """Trials with the given numbers of wrong bits."""
    expected = np.random.default_rng(seed).integers(0, 2, (len(wrong), n_symbols))
    flip = np.arange(n_symbols) < np.array(wrong)[:, None]
    return Evidence(expected, np.where(flip, 1 - expected, expected))


def of_sources(negatives: list[Evidence], *sources: str) -> list[Negative]:
    """Each of a source of its own, unless sources are named."""
    names = sources or tuple(map(str, range(len(negatives))))
    return [Negative(*pair) for pair in zip(negatives, names, strict=True)]
