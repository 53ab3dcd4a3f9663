"""Rates, the binomial of chance and its tails, against golden values, brute force and scipy; never against themselves."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from amb.evaluation import rates
from tests.evaluation.made_up import evidence

GOLDEN = [
    2.3283064365e-10, 7.6834112406e-9, 1.2316741049e-7, 1.2780074030e-6, 9.6505973488e-6,
    5.6537101045e-5, 2.6752636768e-4, 1.0512007866e-3, 3.5001833457e-3,
]  # fmt: skip
"""P[Bin(32, 1/2) <= t], t = 0 ... 8."""


@pytest.mark.parametrize(("tau", "value"), list(enumerate(GOLDEN)))
def test_trial_fpr_matches_the_golden_values(tau: int, value: float) -> None:
    assert float(rates.trial_fpr(32, tau)) == pytest.approx(value, rel=1e-9)


def test_tau_5_is_not_a_per_image_fpr_below_1e6() -> None:
    assert float(rates.trial_fpr(32, 5)) > 1e-6
    assert rates.tau_for_fpr(32, 1e-6) == 2


def test_strict_rule_allows_one_more() -> None:
    assert rates.tau_for_fpr(32, 1e-6, rule="<") == 3
    assert rates.detection_rate([4, 5, 6], 5) == pytest.approx(2 / 3)
    assert rates.detection_rate([4, 5, 6], 5, rule="<") == pytest.approx(1 / 3)


def test_no_tau_achieves_an_impossible_fpr() -> None:
    assert rates.tau_for_fpr(32, 1e-12) is None


@pytest.mark.parametrize("agreement", [0.3, 0.5, 0.9])
def test_trial_fpr_matches_brute_force(agreement: float) -> None:
    for tau in range(6):
        total = sum(
            agreement ** (5 - sum(errors)) * (1 - agreement) ** sum(errors)
            for errors in product((0, 1), repeat=5)
            if sum(errors) <= tau
        )
        assert float(rates.trial_fpr(5, tau, agreement)) == pytest.approx(total)


def test_errors_and_rates_count_wrong_symbols() -> None:
    measured = evidence([0, 3, 8, 1])
    assert rates.errors(measured).tolist() == [0, 3, 8, 1]
    assert rates.bit_error_rate(measured) == pytest.approx(12 / 32)
    assert rates.detection_rate([0, 3, 8, 1], 1) == 0.5


@given(st.lists(st.integers(0, 8), min_size=1, max_size=40))
def test_curve_is_the_rate_at_every_tau(wrong: list[int]) -> None:
    curve = rates.detection_curve(wrong, 8)
    assert curve[-1] == 1
    assert curve.tolist() == pytest.approx([rates.detection_rate(wrong, tau) for tau in range(9)])


@pytest.mark.parametrize(("detected", "p"), [(1, 0.055), (2, 1.5e-3), (3, 2.9e-5), (4, 4.0e-7)])
def test_model_level_p_matches_the_published_values(detected: int, p: float) -> None:
    assert rates.binomial_p(detected, 1000, GOLDEN[5]) == pytest.approx(p, rel=0.05)


def test_binomial_p_matches_scipys_test() -> None:
    expected = binomtest(7, 20, 0.2, alternative="greater").pvalue
    assert rates.binomial_p(7, 20, 0.2) == pytest.approx(expected)


@settings(max_examples=30)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=7), st.data())
def test_poisson_binomial_matches_brute_force(chances: list[float], data: st.DataObject) -> None:
    wanted = data.draw(st.integers(0, len(chances)))
    total = sum(
        np.prod([rate if hit else 1 - rate for rate, hit in zip(chances, hits, strict=True)])
        for hits in product((0, 1), repeat=len(chances))
        if sum(hits) >= wanted
    )
    assert rates.poisson_binomial_p(wanted, chances) == pytest.approx(total, abs=1e-9)


def test_poisson_binomial_of_equal_rates_is_binomial() -> None:
    assert rates.poisson_binomial_p(4, [0.3] * 12) == pytest.approx(rates.binomial_p(4, 12, 0.3))
