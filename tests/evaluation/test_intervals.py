"""Intervals against scipy, their own definitions and simulation."""

from __future__ import annotations

from math import comb

import numpy as np
import pytest
import scipy.stats
from scipy.stats import binomtest

from amb.evaluation import intervals


@pytest.mark.parametrize(("successes", "n"), [(0, 10), (3, 10), (10, 10), (57, 100)])
def test_one_sided_limits_match_scipys_clopper_pearson(successes: int, n: int) -> None:
    upper = binomtest(successes, n, alternative="less").proportion_ci(0.97, "exact").high
    lower = binomtest(successes, n, alternative="greater").proportion_ci(0.97, "exact").low
    assert float(intervals.clopper_pearson_upper(successes, n, 0.03)) == pytest.approx(upper)
    assert float(intervals.clopper_pearson_lower(successes, n, 0.03)) == pytest.approx(lower)


def test_two_sided_interval_solves_its_own_definition() -> None:
    low, high = intervals.clopper_pearson(3, 20)
    at_least = sum(comb(20, k) * low**k * (1 - low) ** (20 - k) for k in range(3, 21))
    at_most = sum(comb(20, k) * high**k * (1 - high) ** (20 - k) for k in range(4))
    assert at_least == pytest.approx(0.025)
    assert at_most == pytest.approx(0.025)


def test_seeds_that_agree_give_clopper_pearson_over_all_trials() -> None:
    pooled = intervals.rate_over_seeds([64, 64, 64], [128, 128, 128])
    assert pooled.value == 0.5
    assert (pooled.low, pooled.high) == pytest.approx(intervals.clopper_pearson(192, 384))
    assert intervals.rate_over_seeds([3], [128])[1:3] == pytest.approx(intervals.clopper_pearson(3, 128))
    assert intervals.rate_over_seeds([0, 0], [50, 50])[:2] == (0.0, 0.0)
    assert intervals.rate_over_seeds([50, 50], [50, 50]).high == 1.0


def test_seeds_that_differ_widen_the_interval_by_their_spread() -> None:
    """By hand: rates .2, .5, .8 of 100; variance of the mean .03, effective n .25/.03 * (t299/t2)^2."""
    spread = intervals.rate_over_seeds([20, 50, 80], [100, 100, 100])
    effective = 0.25 / 0.03 * (scipy.stats.t.ppf(0.975, 299) / scipy.stats.t.ppf(0.975, 2)) ** 2
    low = scipy.stats.beta.ppf(0.025, 0.5 * effective, 0.5 * effective + 1)
    assert spread.low == pytest.approx(low)
    assert spread.high == pytest.approx(1 - low)
    assert spread.low < intervals.clopper_pearson(150, 300).low


def test_the_interval_over_seeds_covers_its_rate() -> None:
    """Seeds with a rate of their own, beta(8, 2): the mean .8 lies inside in about 95 of 100 draws or more."""
    drawn = np.random.default_rng(0)
    inside = 0
    for _ in range(400):
        hits = drawn.binomial(128, drawn.beta(8, 2, size=3))
        estimate = intervals.rate_over_seeds(hits.tolist(), [128] * 3)
        inside += estimate.low <= 0.8 <= estimate.high
    assert inside / 400 >= 0.92


def test_a_mean_over_seeds_has_students_interval() -> None:
    values = [1.0, 2.0, 4.0]
    expected = scipy.stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert intervals.mean_over_seeds(values)[1:3] == pytest.approx((expected.low, expected.high))
    assert np.isnan(intervals.mean_over_seeds([1.0]).low)
