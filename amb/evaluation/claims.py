"""Tests that are valid over models, which a claim may rest on: the exact null, the rank among sources, and several at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from amb.api.records import Evidence
from amb.api.types import Basis
from amb.evaluation.rates import binomial_p

EXACT_LEVEL: Final = 1e-6
"""False positive rate of a claim where the null is exact, unless the user says otherwise."""


class ValidTest(NamedTuple):
    """A test that is valid over models, and what it says of one."""

    p_value: float
    basis: Basis
    level: float
    claim: bool


def exact_test(evidence: Evidence, level: float = EXACT_LEVEL) -> ValidTest:
    """P[as many right symbols] where each is right with probability 1 / alphabet, independently: binomial over all symbols.

    Exact for every model that was made without the key, if the method's null is. Symbols that could not be read count as
    wrong, so a difference of nothing gives p = 1.
    """
    right = int((evidence.expected == evidence.observed).sum())
    p_value = binomial_p(right, evidence.expected.size, 1 / evidence.alphabet)
    return ValidTest(p_value, "exact", level, p_value <= level)


def source_test(rate: float, rates_of_sources: Mapping[str, Sequence[float]]) -> ValidTest:
    """The rank of a rate among sources of innocent models, each by the largest rate of its models: (1 + #{>= rate}) / (n + 1).

    Valid where the suspect, if innocent, is exchangeable with the sources, however many relatives each of them has: the
    largest of a source's rates is at least that of the model that the suspect would be exchanged with. The level is the
    smallest that n sources support, 1 / (n + 1).
    """
    p_value = calibrated_p(rate, [max(rates) for rates in rates_of_sources.values()])
    level = supported_fpr(len(rates_of_sources))
    return ValidTest(p_value, "calibrated", level, bool(rates_of_sources) and p_value <= level)


def calibrated_p(rate: float, negative_rates: Sequence[float]) -> float:
    """Conformal p-value: rank of a detection rate among those of negatives, (1 + #{>= rate}) / (n + 1).

    Valid where the suspect, under the null, is exchangeable with the negatives; never below 1 / (n + 1).
    """
    return (1 + sum(negative >= rate for negative in negative_rates)) / (len(negative_rates) + 1)


def supported_fpr(n_negatives: int) -> float:
    """Smallest model-level false positive rate that n negatives can support, 1 / (n + 1)."""
    return 1 / (n_negatives + 1)


def correct_holm(p_values: Sequence[float]) -> list[float]:
    """Step-down p-values of several tests at once (Holm 1979): claims at `level` are then false at most `level` of the time.

    The k-th smallest of n is multiplied by n - k + 1, never falls below an earlier one, and is at most 1.
    """
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    corrected, largest = [0.0] * len(p_values), 0.0
    for rank, at in enumerate(order):
        largest = max(largest, min(1.0, p_values[at] * (len(p_values) - rank)))
        corrected[at] = largest
    return corrected
