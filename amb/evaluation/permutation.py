"""Does any message get through? A permutation test of the agreement between trials and messages."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from amb.api.records import Evidence
from amb.evaluation.rates import Floats, Ints

_MOST_KEPT: Final = 4_000_000
"""Places of permuted pairs that are kept, or made at once: 32 MB."""


def permutation_p(evidence: Evidence, n_permutations: int = 9999, seed: int = 0) -> float:
    """One-sided p-value that a trial's symbols agree with its own message more than with another trial's.

    The statistic is the total agreement; the null permutes messages across trials (Phipson and Smyth 2010, with
    the observed order counted in, so p is never 0). Where all trials share one message it is 1: nothing to tell
    apart.
    """
    agreement = _count_agreements(evidence.expected, evidence.observed, evidence.alphabet).ravel()
    n = len(evidence.expected)
    seen = agreement[:: n + 1].sum()
    at_least = sum(
        int((agreement.take(places).sum(axis=1) >= seen).sum()) for places in _permute(n, n_permutations, seed)
    )
    return (1 + at_least) / (1 + n_permutations)


def _permute(n: int, n_permutations: int, seed: int) -> Iterable[Ints]:
    """Where in a flat (n, n) table the pairs of each permutation lie, (permutations, n) in parts; small ones are kept."""
    if n * n_permutations <= _MOST_KEPT:
        return (_draw_permutations(n, n_permutations, seed),)
    generator, at_once = np.random.default_rng(seed), max(1, _MOST_KEPT // n)
    parts = (min(at_once, n_permutations - start) for start in range(0, n_permutations, at_once))
    return (_place_permutations(generator, n, part) for part in parts)


@lru_cache(maxsize=8)
def _draw_permutations(n: int, n_permutations: int, seed: int) -> Ints:
    """The same for every cell of a method, and what takes longest in its verdict."""
    return _place_permutations(np.random.default_rng(seed), n, n_permutations)


def _place_permutations(generator: np.random.Generator, n: int, n_permutations: int) -> Ints:
    columns = np.stack([generator.permutation(n) for _ in range(n_permutations)])
    return np.asarray(columns + np.arange(n) * n, dtype=np.int64)


def _count_agreements(expected: NDArray[np.integer], observed: NDArray[np.integer], alphabet: int) -> Floats:
    """Symbols that agree between trial i's reading and trial j's message, (trials, trials)."""
    total = np.zeros((len(observed), len(expected)), dtype=np.float64)
    for symbol in range(alphabet):
        total += (observed == symbol).astype(np.float64) @ (expected == symbol).astype(np.float64).T
    return total
