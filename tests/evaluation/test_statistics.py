"""Statistics against the golden values, brute force and scipy; never against themselves."""

from __future__ import annotations

from itertools import product
from math import comb

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, binomtest

from amb.api.records import Evidence
from amb.evaluation import statistics

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


def test_false_detection_bound_holds_in_simulation() -> None:
    generator = np.random.default_rng(0)
    bits = generator.integers(0, 2, (12, 50, 16))
    message = generator.integers(0, 2, (50, 16))
    bound = statistics.false_detection_bound([Evidence(message, each) for each in bits], tau=3, alpha=0.05)
    innocent = generator.integers(0, 2, (2000, 50, 16))
    rates = ((innocent != message).sum(axis=2) <= 3).mean(axis=1)
    assert (rates > bound).mean() <= 0.05


def of_sources(negatives: list[Evidence], *sources: str) -> list[statistics.Negative]:
    """Each of a source of its own, unless sources are named."""
    names = sources or tuple(map(str, range(len(negatives))))
    return [statistics.Negative(*pair) for pair in zip(negatives, names, strict=True)]


def test_without_negatives_nothing_is_claimed() -> None:
    verdict = statistics.decide(evidence([0] * 10), [], tau=1, alpha=0.05)
    assert verdict.bound == 1.0
    assert not verdict.claim
    assert (verdict.p_value, verdict.basis, verdict.n_sources) == (1.0, "calibrated", 0)
    assert verdict.margin is None
    assert verdict.fpr_supported == 1.0


def test_verdict_rests_on_the_negatives() -> None:
    negatives = [evidence([4] * 30, seed=seed) for seed in range(5)]
    verdict = statistics.decide(evidence([0] * 29 + [5]), of_sources(negatives), tau=1, alpha=0.05)
    assert verdict.claim
    assert verdict.detection_rate == pytest.approx(29 / 30)
    assert verdict.margin == pytest.approx(29 / 30)
    assert verdict.n_negatives == 5
    assert verdict.fpr_supported == pytest.approx(1 / 6)
    assert verdict.p_values["calibrated"] == pytest.approx(1 / 6)


def test_a_negative_that_reads_like_the_suspect_takes_the_margin_away() -> None:
    negatives = [evidence([0] * 30), *(evidence([4] * 30, seed=seed) for seed in range(4))]
    verdict = statistics.decide(evidence([0] * 30), of_sources(negatives), tau=1, alpha=0.05)
    assert verdict.margin == 0
    assert verdict.p_values["calibrated"] == pytest.approx(2 / 6)


def test_relatives_count_as_one_source() -> None:
    negatives = of_sources([evidence([4] * 30, seed=seed) for seed in range(6)], "a", "a", "a", "b", "b", "c")
    verdict = statistics.decide(evidence([0] * 30), negatives, tau=1, alpha=0.05)
    assert (verdict.n_sources, verdict.n_negatives) == (3, 6)
    assert verdict.p_value == verdict.level == pytest.approx(1 / 4)
    assert verdict.claim
    own = statistics.decide(evidence([0] * 30), negatives, tau=1, alpha=0.05, source="a")
    assert (own.n_sources, own.level) == (2, pytest.approx(1 / 3)), "nobody is ranked among his relatives"


def test_an_exact_claim_is_binomial_over_all_symbols() -> None:
    verdict = statistics.decide(evidence([2] * 8), [], tau=1, alpha=0.05, null="exact", level=1e-6)
    n = verdict.n_trials * (len(verdict.curve) - 1)
    assert verdict.p_value == pytest.approx(binom.sf(n - 16 - 1, n, 0.5))
    assert (verdict.basis, verdict.level, verdict.claim) == ("exact", 1e-6, verdict.p_value <= 1e-6)
    unread = statistics.decide(evidence([4] * 8), [], tau=1, alpha=0.05, null="exact")
    assert not unread.claim


def test_the_paper_rule_is_no_test_of_a_model_and_the_source_test_is() -> None:
    """Innocent models that differ in how much they agree: agreement drawn for each from Beta(6, 4), 9 sources."""
    generator, n_draws = np.random.default_rng(7), 300
    by_the_paper, by_sources = 0, 0
    for _ in range(n_draws):
        message = generator.integers(0, 2, (40, 16))
        agreement = generator.beta(6, 4, 10)
        models = [
            Evidence(message, np.where(generator.random((40, 16)) < each, message, 1 - message)) for each in agreement
        ]
        verdict = statistics.decide(models[0], of_sources(models[1:]), tau=5, alpha=0.05)
        by_the_paper += verdict.paper_rule
        by_sources += verdict.claim
    assert by_the_paper / n_draws > 0.1, "promised: .05"
    assert binom.sf(by_sources - 1, n_draws, 1 / 10) > 1e-3, "the level that nine sources support"


def test_the_source_test_is_valid_where_sources_have_relatives() -> None:
    generator, n_draws, claims = np.random.default_rng(8), 2000, 0
    for _ in range(n_draws):
        centres = generator.normal(size=7)
        rates = {str(at): list(centres[at] + 0.1 * generator.normal(size=10)) for at in range(6)}
        claims += statistics.source_test(centres[6] + 0.1 * generator.normal(), rates).claim
    assert binom.sf(claims - 1, n_draws, 1 / 7) > 1e-3


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


@pytest.mark.parametrize("at_once", [10**6, 100, 1])
def test_permutation_p_is_that_of_one_permutation_after_the_other(
    at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(statistics, "_MOST_KEPT", at_once)
    drawn = np.random.default_rng(3)
    for n_trials, n_symbols, alphabet in [(1, 4, 2), (7, 5, 2), (16, 3, 3), (40, 8, 2)]:
        evidence = Evidence(*drawn.integers(0, alphabet, (2, n_trials, n_symbols)), alphabet=alphabet)
        agreement = (evidence.observed[:, None] == evidence.expected[None]).sum(axis=2)
        generator, rows = np.random.default_rng(5), np.arange(n_trials)
        sums = [agreement[rows, generator.permutation(n_trials)].sum() for _ in range(99)]
        expected = (1 + sum(each >= np.trace(agreement) for each in sums)) / 100
        assert statistics.permutation_p(evidence, 99, seed=5) == pytest.approx(expected, abs=0)


def test_permutation_p_is_uniform_under_the_null() -> None:
    generator = np.random.default_rng(2)
    drawn = [Evidence(*generator.integers(0, 2, (2, 12, 8))) for _ in range(200)]
    small = np.mean([statistics.permutation_p(each, n_permutations=199) <= 0.1 for each in drawn])
    assert 0.03 <= small <= 0.18


def test_supported_fpr_and_the_rule_of_three() -> None:
    assert statistics.supported_fpr(99) == pytest.approx(0.01)
    assert float(statistics.clopper_pearson_upper(0, 100, 0.05)) == pytest.approx(3 / 100, rel=0.02)


def test_evidence_refuses_shapes_that_do_not_match() -> None:
    with pytest.raises(ValueError, match="two equal, non-empty"):
        Evidence(np.zeros((2, 3), int), np.zeros((3, 2), int))


# Over seeds and over suspects


def test_seeds_that_agree_give_clopper_pearson_over_all_trials() -> None:
    pooled = statistics.rate_over_seeds([64, 64, 64], [128, 128, 128])
    assert pooled.value == 0.5
    assert (pooled.low, pooled.high) == pytest.approx(statistics.clopper_pearson(192, 384))
    assert statistics.rate_over_seeds([3], [128])[1:3] == pytest.approx(statistics.clopper_pearson(3, 128))
    assert statistics.rate_over_seeds([0, 0], [50, 50])[:2] == (0.0, 0.0)
    assert statistics.rate_over_seeds([50, 50], [50, 50]).high == 1.0


def test_seeds_that_differ_widen_the_interval_by_their_spread() -> None:
    """By hand: rates .2, .5, .8 of 100; variance of the mean .03, effective n .25/.03 * (t299/t2)^2."""
    spread = statistics.rate_over_seeds([20, 50, 80], [100, 100, 100])
    effective = 0.25 / 0.03 * (scipy.stats.t.ppf(0.975, 299) / scipy.stats.t.ppf(0.975, 2)) ** 2
    low = scipy.stats.beta.ppf(0.025, 0.5 * effective, 0.5 * effective + 1)
    assert spread.low == pytest.approx(low)
    assert spread.high == pytest.approx(1 - low)
    assert spread.low < statistics.clopper_pearson(150, 300).low


def test_the_interval_over_seeds_covers_its_rate() -> None:
    """Seeds with a rate of their own, beta(8, 2): the mean .8 lies inside in about 95 of 100 draws or more."""
    drawn = np.random.default_rng(0)
    inside = 0
    for _ in range(400):
        hits = drawn.binomial(128, drawn.beta(8, 2, size=3))
        estimate = statistics.rate_over_seeds(hits.tolist(), [128] * 3)
        inside += estimate.low <= 0.8 <= estimate.high
    assert inside / 400 >= 0.92


def test_a_mean_over_seeds_has_students_interval() -> None:
    values = [1.0, 2.0, 4.0]
    expected = scipy.stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert statistics.mean_over_seeds(values)[1:3] == pytest.approx((expected.low, expected.high))
    assert np.isnan(statistics.mean_over_seeds([1.0]).low)


@settings(deadline=None)  # scikit-learn loads within the first example
@given(st.lists(st.integers(0, 8), min_size=1, max_size=12), st.lists(st.integers(0, 8), min_size=1, max_size=12))
def test_auc_is_that_of_scikit_learn(positives: list[int], negatives: list[int]) -> None:
    from sklearn.metrics import roc_auc_score

    estimate = statistics.auc([p / 8 for p in positives], [n / 8 for n in negatives])
    labels = [1] * len(positives) + [0] * len(negatives)
    assert estimate.value == pytest.approx(roc_auc_score(labels, positives + negatives))
    assert 0 <= estimate.low <= estimate.value <= estimate.high <= 1
    assert estimate.n == len(labels)


def test_auc_of_few_suspects_is_not_certain_even_where_they_separate() -> None:
    few, many = statistics.auc([1.0] * 5, [0.0] * 5), statistics.auc([1.0] * 50, [0.0] * 50)
    assert few.value == many.value == 1.0
    assert few.low < 0.8 < many.low < 1.0


def test_the_interval_of_auc_covers_it() -> None:
    """Normal scores one standard deviation apart: area = Phi(1 / sqrt 2)."""
    drawn = np.random.default_rng(0)
    truth = scipy.stats.norm.cdf(1 / 2**0.5)
    inside = 0
    for _ in range(400):
        estimate = statistics.auc(drawn.normal(1, 1, 15).tolist(), drawn.normal(0, 1, 15).tolist())
        inside += estimate.low <= truth <= estimate.high
    assert inside / 400 >= 0.92


def test_tpr_needs_enough_negatives_for_its_fpr() -> None:
    positives, negatives = [0.9, 0.5, 0.1], [0.0, 0.1, 0.2, 0.3]
    assert statistics.tpr_at_fpr(positives, negatives, 0.19) is None
    strict = statistics.tpr_at_fpr(positives, negatives, 0.2)
    assert strict is not None
    assert strict.value == pytest.approx(2 / 3)
    assert (strict.low, strict.high) == pytest.approx(statistics.clopper_pearson(2, 3))
    loose = statistics.tpr_at_fpr(positives, negatives, 0.8)
    assert loose is not None
    assert loose.value == 1.0


def test_tpr_threshold_lets_no_more_innocents_through_than_it_says() -> None:
    """A new innocent model, exchangeable with the negatives, counts as found at most as often as the FPR."""
    drawn = np.random.default_rng(0)
    found = 0.0
    for _ in range(2000):
        rates = drawn.random(10).tolist()
        estimate = statistics.tpr_at_fpr(rates[:1], rates[1:], 0.2)
        assert estimate is not None
        found += estimate.value
    assert found / 2000 <= 0.2 + 0.03


def test_aruc_is_the_area_that_a_fine_grid_gives() -> None:
    positives, negatives = [1.0, 0.9, 0.4], [0.0, 0.1, 0.6]
    grid = (np.arange(100_000) + 0.5) / 100_000
    robust = (np.array(positives)[:, None] >= grid).mean(axis=0)
    unique = (np.array(negatives)[:, None] < grid).mean(axis=0)
    estimate = statistics.aruc(positives, negatives)
    assert estimate.value == pytest.approx(np.minimum(robust, unique).mean(), abs=1e-4)
    assert estimate.low <= estimate.value <= estimate.high
    assert statistics.aruc([1.0] * 3, [0.0] * 4).value == 1.0
    assert statistics.aruc([0.0], [1.0]).value == 0.0
