"""The bound of eq. 13 against its definition and simulation."""

from __future__ import annotations

import numpy as np

from amb.api.records import Evidence
from amb.evaluation import bounds, intervals, rates
from tests.evaluation.made_up import evidence


def test_bit_agreement_pools_models_per_trigger() -> None:
    agreement = bounds.bit_agreement([evidence([0, 8]), evidence([2, 4])])
    assert agreement.successes.tolist() == [14, 4]
    assert agreement.n == 16


def test_false_detection_bound_is_the_smallest_with_a_small_tail() -> None:
    negatives = [evidence([4] * 20, seed=seed) for seed in range(3)]
    bound = bounds.false_detection_bound(negatives, tau=1, alpha=0.05)
    limit = float(intervals.clopper_pearson_upper(12, 24, 0.05 / 20))
    rate = float(rates.trial_fpr(8, 1, limit))
    detected = round(bound * 20)
    assert rates.binomial_p(detected + 1, 20, rate) <= 0.05
    assert rates.binomial_p(detected, 20, rate) > 0.05


def test_false_detection_bound_holds_in_simulation() -> None:
    generator = np.random.default_rng(0)
    bits = generator.integers(0, 2, (12, 50, 16))
    message = generator.integers(0, 2, (50, 16))
    bound = bounds.false_detection_bound([Evidence(message, each) for each in bits], tau=3, alpha=0.05)
    innocent = generator.integers(0, 2, (2000, 50, 16))
    rates = ((innocent != message).sum(axis=2) <= 3).mean(axis=1)
    assert (rates > bound).mean() <= 0.05
