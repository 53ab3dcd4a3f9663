"""Intervals of shares and means, also over seeds."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from amb.evaluation.rates import Floats


class Interval(NamedTuple):
    """A confidence interval of a probability."""

    low: float
    high: float


class Estimate(NamedTuple):
    """A figure with its 95 % interval, and how many draws it rests on."""

    value: float
    low: float
    high: float
    n: int


@lru_cache(maxsize=4096)
def clopper_pearson(successes: int, n: int, confidence: float = 0.95) -> Interval:
    """Exact two-sided interval of a proportion; kept, for many cells share it."""
    from scipy.stats import binomtest

    interval = binomtest(successes, n).proportion_ci(confidence, method="exact")
    return Interval(float(interval.low), float(interval.high))


def clopper_pearson_upper(successes: ArrayLike, n: ArrayLike, alpha: float) -> Floats:
    """One-sided upper limit that holds with probability at least 1 - alpha (eq. 11)."""
    from scipy.stats import beta

    successes, n = np.broadcast_arrays(np.asarray(successes, dtype=np.float64), np.asarray(n, dtype=np.float64))
    limit = beta.ppf(1 - alpha, successes + 1, np.maximum(n - successes, 1e-12))
    return np.where(successes >= n, 1.0, limit)


def clopper_pearson_lower(successes: ArrayLike, n: ArrayLike, alpha: float) -> Floats:
    """One-sided lower limit that holds with probability at least 1 - alpha (eq. 11)."""
    successes, n = np.broadcast_arrays(np.asarray(successes, dtype=np.float64), np.asarray(n, dtype=np.float64))
    return 1 - clopper_pearson_upper(n - successes, n, alpha)


def rate_over_seeds(detected: Sequence[float], trials: Sequence[int], confidence: float = 0.95) -> Estimate:
    """Mean of a rate over seeds: the interval of Korn and Graubard (1998) with a seed as the cluster.

    Clopper-Pearson at an effective number of trials: as many as would give the variance that is seen between seeds,
    less the loss of a t-distribution with seeds - 1 degrees of freedom, and never more than there are. Where the
    seeds agree exactly, and with one seed, it is Clopper-Pearson over all trials.
    """
    from scipy.special import betaincinv, stdtrit  # the quantiles of beta and t, a hundred times as fast as scipy.stats

    hits, sizes = np.asarray(detected, dtype=np.float64), np.asarray(trials, dtype=np.float64)
    n, n_seeds = float(sizes.sum()), len(hits)
    rate = float(hits.sum() / n)
    if n_seeds > 1:
        residuals = hits - rate * sizes  # linearised variance of a ratio (Cochran 1977, eq. 6.13)
        variance = n_seeds / (n_seeds - 1) * float(residuals @ residuals) / n**2
        if variance > 0:
            tail = (1 + confidence) / 2
            n = min(n, rate * (1 - rate) / variance * float((stdtrit(n - 1, tail) / stdtrit(n_seeds - 1, tail)) ** 2))
    alpha, hit = 1 - confidence, rate * n
    low = float(betaincinv(hit, n - hit + 1, alpha / 2)) if hit > 0 else 0.0
    high = float(betaincinv(hit + 1, n - hit, 1 - alpha / 2)) if hit < n else 1.0
    return Estimate(rate, low, high, n_seeds)


def mean_over_seeds(values: Sequence[float], confidence: float = 0.95) -> Estimate:
    """Mean with Student's t interval; with one value there is no interval and the ends are NaN."""
    from scipy.special import stdtrit

    array = np.asarray(values, dtype=np.float64)
    n, mean = len(array), float(array.mean())
    if n == 1:
        return Estimate(mean, float("nan"), float("nan"), 1)
    half = float(stdtrit(n - 1, (1 + confidence) / 2) * array.std(ddof=1) / n**0.5)
    return Estimate(mean, mean - half, mean + half, n)
