"""Statistics against the golden values, brute force and scipy; never against themselves."""

from __future__ import annotations

from itertools import product
from math import comb

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from amb import statistics
from amb.records import Evidence

GOLDEN = [
    2.3283064365e-10, 7.6834112406e-9, 1.2316741049e-7, 1.2780074030e-6, 9.6505973488e-6,
    5.6537101045e-5, 2.6752636768e-4, 1.0512007866e-3, 3.5001833457e-3,
]  # fmt: skip
"""P[Bin(32, 1/2) <= t], t = 0 ... 8."""


def evidence(wrong: list[int], n_symbols: int = 8, seed: int = 0) -> Evidence:
    """Trials with the given numbers of wrong bits."""
    expected = np.random.default_rng(seed).integers(0, 2, (len(wrong), n_symbols))
    flip = np.arange(n_symbols) < np.array(wrong)[:, None]
    return Evidence(expected, np.where(flip, 1 - expected, expected))


@pytest.mark.parametrize(("tau", "value"), list(enumerate(GOLDEN)))
def test_trial_fpr_matches_the_golden_values(tau: int, value: float) -> None:
    assert float(statistics.trial_fpr(32, tau)) == pytest.approx(value, rel=1e-9)


def test_tau_5_is_not_a_per_image_fpr_below_1e6() -> None:
    assert float(statistics.trial_fpr(32, 5)) > 1e-6
    assert statistics.tau_for_fpr(32, 1e-6) == 2


def test_strict_rule_allows_one_more() -> None:
    assert statistics.tau_for_fpr(32, 1e-6, rule="<") == 3
    assert statistics.detection_rate([4, 5, 6], 5) == pytest.approx(2 / 3)
    assert statistics.detection_rate([4, 5, 6], 5, rule="<") == pytest.approx(1 / 3)


def test_no_tau_achieves_an_impossible_fpr() -> None:
    assert statistics.tau_for_fpr(32, 1e-12) is None


@pytest.mark.parametrize("agreement", [0.3, 0.5, 0.9])
def test_trial_fpr_matches_brute_force(agreement: float) -> None:
    for tau in range(6):
        total = sum(
            agreement ** (5 - sum(errors)) * (1 - agreement) ** sum(errors)
            for errors in product((0, 1), repeat=5)
            if sum(errors) <= tau
        )
        assert float(statistics.trial_fpr(5, tau, agreement)) == pytest.approx(total)


def test_errors_and_rates_count_wrong_symbols() -> None:
    measured = evidence([0, 3, 8, 1])
    assert statistics.errors(measured).tolist() == [0, 3, 8, 1]
    assert statistics.bit_error_rate(measured) == pytest.approx(12 / 32)
    assert statistics.detection_rate([0, 3, 8, 1], 1) == 0.5


@given(st.lists(st.integers(0, 8), min_size=1, max_size=40))
def test_curve_is_the_rate_at_every_tau(wrong: list[int]) -> None:
    curve = statistics.detection_curve(wrong, 8)
    assert curve[-1] == 1
    assert curve.tolist() == pytest.approx([statistics.detection_rate(wrong, tau) for tau in range(9)])


@pytest.mark.parametrize(("detected", "p"), [(1, 0.055), (2, 1.5e-3), (3, 2.9e-5), (4, 4.0e-7)])
def test_model_level_p_matches_the_published_values(detected: int, p: float) -> None:
    assert statistics.binomial_p(detected, 1000, GOLDEN[5]) == pytest.approx(p, rel=0.05)


def test_binomial_p_matches_scipys_test() -> None:
    expected = binomtest(7, 20, 0.2, alternative="greater").pvalue
    assert statistics.binomial_p(7, 20, 0.2) == pytest.approx(expected)


@settings(max_examples=30)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=7), st.data())
def test_poisson_binomial_matches_brute_force(rates: list[float], data: st.DataObject) -> None:
    wanted = data.draw(st.integers(0, len(rates)))
    total = sum(
        np.prod([rate if hit else 1 - rate for rate, hit in zip(rates, hits, strict=True)])
        for hits in product((0, 1), repeat=len(rates))
        if sum(hits) >= wanted
    )
    assert statistics.poisson_binomial_p(wanted, rates) == pytest.approx(total, abs=1e-9)


def test_poisson_binomial_of_equal_rates_is_binomial() -> None:
    assert statistics.poisson_binomial_p(4, [0.3] * 12) == pytest.approx(statistics.binomial_p(4, 12, 0.3))


@pytest.mark.parametrize(("successes", "n"), [(0, 10), (3, 10), (10, 10), (57, 100)])
def test_one_sided_limits_match_scipys_clopper_pearson(successes: int, n: int) -> None:
    upper = binomtest(successes, n, alternative="less").proportion_ci(0.97, "exact").high
    lower = binomtest(successes, n, alternative="greater").proportion_ci(0.97, "exact").low
    assert float(statistics.clopper_pearson_upper(successes, n, 0.03)) == pytest.approx(upper)
    assert float(statistics.clopper_pearson_lower(successes, n, 0.03)) == pytest.approx(lower)


def test_two_sided_interval_solves_its_own_definition() -> None:
    low, high = statistics.clopper_pearson(3, 20)
    at_least = sum(comb(20, k) * low**k * (1 - low) ** (20 - k) for k in range(3, 21))
    at_most = sum(comb(20, k) * high**k * (1 - high) ** (20 - k) for k in range(4))
    assert at_least == pytest.approx(0.025)
    assert at_most == pytest.approx(0.025)


def test_bit_agreement_pools_models_per_trigger() -> None:
    agreement = statistics.bit_agreement([evidence([0, 8]), evidence([2, 4])])
    assert agreement.successes.tolist() == [14, 4]
    assert agreement.n == 16


def test_false_detection_bound_is_the_smallest_with_a_small_tail() -> None:
    negatives = [evidence([4] * 20, seed=seed) for seed in range(3)]
    bound = statistics.false_detection_bound(negatives, tau=1, alpha=0.05)
    limit = float(statistics.clopper_pearson_upper(12, 24, 0.05 / 20))
    rate = float(statistics.trial_fpr(8, 1, limit))
    detected = round(bound * 20)
    assert statistics.binomial_p(detected + 1, 20, rate) <= 0.05
    assert statistics.binomial_p(detected, 20, rate) > 0.05


def test_misdetection_bound_is_the_largest_with_a_small_tail() -> None:
    positives = [evidence([1] * 20, seed=seed) for seed in range(3)]
    bound = statistics.misdetection_bound(positives, tau=3, alpha=0.05)
    limit = float(statistics.clopper_pearson_lower(21, 24, 0.05 / 20))
    rate = float(statistics.trial_fpr(8, 3, limit))
    detected = round(bound * 20)
    assert 1 - statistics.binomial_p(detected, 20, rate) <= 0.05
    assert 1 - statistics.binomial_p(detected + 1, 20, rate) > 0.05


def test_false_detection_bound_holds_in_simulation() -> None:
    generator = np.random.default_rng(0)
    bits = generator.integers(0, 2, (12, 50, 16))
    message = generator.integers(0, 2, (50, 16))
    bound = statistics.false_detection_bound([Evidence(message, each) for each in bits], tau=3, alpha=0.05)
    innocent = generator.integers(0, 2, (2000, 50, 16))
    rates = ((innocent != message).sum(axis=2) <= 3).mean(axis=1)
    assert (rates > bound).mean() <= 0.05


def test_without_negatives_nothing_is_owned() -> None:
    verdict = statistics.decide(evidence([0] * 10), [], tau=1, alpha=0.05)
    assert verdict.bound == 1.0
    assert not verdict.owned
    assert verdict.margin is None
    assert verdict.fpr_supported == 1.0


def test_verdict_rests_on_the_negatives() -> None:
    negatives = [evidence([4] * 30, seed=seed) for seed in range(5)]
    verdict = statistics.decide(evidence([0] * 29 + [5]), negatives, tau=1, alpha=0.05)
    assert verdict.owned
    assert verdict.detection_rate == pytest.approx(29 / 30)
    assert verdict.margin == pytest.approx(29 / 30)
    assert verdict.n_negatives == 5
    assert verdict.fpr_supported == pytest.approx(1 / 6)
    assert verdict.p_values["calibrated"] == pytest.approx(1 / 6)


def test_a_negative_that_reads_like_the_suspect_takes_the_margin_away() -> None:
    negatives = [evidence([0] * 30), *(evidence([4] * 30, seed=seed) for seed in range(4))]
    verdict = statistics.decide(evidence([0] * 30), negatives, tau=1, alpha=0.05)
    assert verdict.margin == 0
    assert verdict.p_values["calibrated"] == pytest.approx(2 / 6)


def test_calibrated_p_ranks_among_negatives() -> None:
    assert statistics.calibrated_p(0.5, [0.1, 0.5, 0.9]) == pytest.approx(3 / 4)
    assert statistics.calibrated_p(1.0, []) == 1.0


def test_permutation_p_sees_a_message_and_not_its_absence() -> None:
    generator = np.random.default_rng(1)
    message, noise = generator.integers(0, 2, (2, 40, 16))
    assert statistics.permutation_p(Evidence(message, message)) == pytest.approx(1e-4)
    assert statistics.permutation_p(Evidence(message, noise)) > 0.01
    same = np.repeat(message[:1], 40, axis=0)
    assert statistics.permutation_p(Evidence(same, same)) == 1.0


def test_permutation_p_is_uniform_under_the_null() -> None:
    generator = np.random.default_rng(2)
    drawn = [Evidence(*generator.integers(0, 2, (2, 12, 8))) for _ in range(200)]
    small = np.mean([statistics.permutation_p(each, n_permutations=199) <= 0.1 for each in drawn])
    assert 0.03 <= small <= 0.18


def test_supported_fpr_and_the_rule_of_three() -> None:
    assert statistics.supported_fpr(99) == pytest.approx(0.01)
    assert statistics.fpr_upper_limit(0, 100) == pytest.approx(3 / 100, rel=0.02)
    assert statistics.fpr_upper_limit(0, 0) == 1.0


def test_evidence_refuses_shapes_that_do_not_match() -> None:
    with pytest.raises(ValueError, match="two equal, non-empty"):
        Evidence(np.zeros((2, 3)), np.zeros((3, 2)))
