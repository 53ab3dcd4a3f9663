"""Thresholds from negatives, judged on others, and how many negatives and triggers a claim needs. Pure functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from amb.evaluation.intervals import rate_over_seeds


def rate_threshold(negative_rates: Sequence[float], fpr: float) -> float | None:
    """The rate that a suspect has to exceed so that its calibrated p-value is at most `fpr`; None where n is too small.

    (1 + #{negatives >= R}) / (n + 1) <= fpr holds exactly for R above the m-th largest negative, m = floor(fpr (n + 1)).
    """
    m = _find_rank(fpr, len(negative_rates))
    return sorted(negative_rates, reverse=True)[m - 1] if m else None


class HeldOut(NamedTuple):
    """False claims on negatives of one source, by the threshold that the negatives of all other sources give."""

    n_false: int
    n: int


def held_out(rates: Mapping[str, Sequence[float]], fpr: float) -> dict[str, HeldOut]:
    """Leave one source out: its negatives are judged by a threshold that none of its models has set.

    Models made from one source are alike, so a threshold is never judged on relatives of those it was chosen on.
    Empty where the others are too few to support `fpr`.
    """
    ordered = sorted(((rate, source) for source, members in rates.items() for rate in members), reverse=True)
    places: dict[str, list[int]] = {}
    for place, (_, source) in enumerate(ordered):
        places.setdefault(source, []).append(place)
    found = {}
    for source, own in rates.items():
        m = _find_rank(fpr, len(ordered) - len(own))
        if not m:
            return {}
        at = m - 1
        for place in places.get(source, ()):  # its own models make room for those behind them
            at += place <= at
        found[source] = HeldOut(sum(rate > ordered[at][0] for rate in own), len(own))
    return found


def _find_rank(fpr: float, n: int) -> int:
    """The m of `rate_threshold`."""
    return int(np.floor(fpr * (n + 1) + 1e-9))  # 0.05 x 20 is meant to be 1


def tau_for_negatives(curves: Sequence[Sequence[float]], n_trials: int, epsilon: float) -> int | None:
    """Largest tau with which at most a share epsilon of the trials on innocent models passes; None where no tau does.

    `curves` are R(0), R(1), ... of each negative. The share is bounded by its upper 95 % Clopper-Pearson limit over
    models as clusters (Korn and Graubard), as `rate_over_seeds` does over seeds.
    """
    allowed = [
        tau
        for tau, rates in enumerate(zip(*curves, strict=True))
        if rate_over_seeds([round(rate * n_trials) for rate in rates], [n_trials] * len(rates)).high <= epsilon
    ]
    return allowed[-1] if allowed else None


class Power(NamedTuple):
    """What a claim at a false positive rate needs."""

    n_negatives: int
    """Negatives, none of which may fire, that bound the rate at the stated confidence."""
    n_ranked: int
    """Negatives that a calibrated p-value as small as the rate needs, 1 / fpr - 1."""
    n_trials: int | None
    """Triggers with which chance reaches the detections needed with probability at most fpr, and the mark with probability
    at least `confidence`; None where not even MOST_TRIALS do."""
    n_detected: int | None
    """How many of them have to be detected."""


MOST_TRIALS = 10_000


def power(fpr: float, confidence: float, innocent: float, marked: float) -> Power:
    """How many negatives and triggers a claim needs.

    Negatives: (1 - fpr)^n <= 1 - confidence, the exact form of the rule of three. Triggers: the fewest n for which some
    k has P[Bin(n, innocent) >= k] <= fpr and P[Bin(n, marked) >= k] >= confidence, where `innocent` and `marked` are the
    rates at which one trial is detected.
    """
    from math import ceil, log

    n_negatives = ceil(log(1 - confidence) / log(1 - fpr) - 1e-9)
    trials, detected = _find_fewest_trials(fpr, confidence, innocent, marked)
    return Power(n_negatives, ceil(1 / fpr - 1 - 1e-9), trials, detected)


def _find_fewest_trials(fpr: float, confidence: float, innocent: float, marked: float) -> tuple[int | None, int | None]:
    from scipy.stats import binom

    n = np.arange(1, MOST_TRIALS + 1)
    k = np.asarray(binom.isf(fpr, n, innocent), dtype=np.int64) + 1  # least k with P[X >= k] = P[X > k - 1] <= fpr
    good = np.flatnonzero((k <= n) & (binom.sf(k - 1, n, marked) >= confidence))
    return (int(n[good[0]]), int(k[good[0]])) if len(good) else (None, None)
