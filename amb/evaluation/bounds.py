"""The paper's bound on the detection rate of an independent model (eq. 9 to 13)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from amb.api.records import Evidence
from amb.evaluation.intervals import clopper_pearson_upper
from amb.evaluation.rates import Ints, sum_poisson_binomial, trial_fpr


class BitAgreement(NamedTuple):
    """How often the symbols of each trigger agree over a set of models (eq. 9, 10)."""

    successes: Ints  # (trials,)
    n: int
    """Symbols counted for each trigger: models x symbols."""


def bit_agreement(models: Sequence[Evidence]) -> BitAgreement:
    """Count agreeing symbols per trigger over models read with the same key (eq. 10)."""
    agreeing = sum((model.expected == model.observed).sum(axis=1) for model in models)
    return BitAgreement(np.asarray(agreeing, dtype=np.int64), len(models) * models[0].expected.shape[1])


def false_detection_bound(negatives: Sequence[Evidence], tau: int, alpha: float) -> float:
    """Delta such that an independent model has R > Delta with probability at most alpha (eq. 13).

    Each trigger's agreement r is replaced by its upper Clopper-Pearson limit over the negatives (eq. 11), at level
    alpha / trials so that all limits hold at once with probability 1 - alpha; the number of detected trials is then
    Poisson-binomial (eq. 12). With no negatives nothing is known and the bound is 1.
    """
    if not negatives:
        return 1.0
    return _bound_of(bit_agreement(negatives), negatives[0].expected.shape[1], tau, alpha)


def least_bound(n_negatives: int, n_trials: int, n_symbols: int, tau: int, alpha: float) -> float:
    """The bound of eq. 13 where no symbol of any negative agrees: with so few negatives none is below it, whatever they read."""
    silent = BitAgreement(np.zeros(n_trials, dtype=np.int64), n_negatives * n_symbols)
    return _bound_of(silent, n_symbols, tau, alpha)


def _bound_of(agreement: BitAgreement, n_symbols: int, tau: int, alpha: float) -> float:
    return _find_bound(tuple(agreement.successes.tolist()), agreement.n, n_symbols, tau, alpha)


@lru_cache(maxsize=256)
def _find_bound(successes: tuple[int, ...], n: int, n_symbols: int, tau: int, alpha: float) -> float:
    """Kept: all positives of a method are judged by the same negatives."""
    n_trials = len(successes)
    limits = clopper_pearson_upper(successes, n, alpha / n_trials)
    tail = sum_poisson_binomial(trial_fpr(n_symbols, tau, limits))  # P[detected >= k], k = 0 ... trials + 1
    return float((np.argmax(tail <= alpha) - 1) / n_trials)
