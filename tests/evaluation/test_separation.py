"""Areas and shares over suspects against scikit-learn, a fine grid and simulation."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from amb.evaluation import intervals, separation


@settings(deadline=None)  # scikit-learn loads within the first example
@given(st.lists(st.integers(0, 8), min_size=1, max_size=12), st.lists(st.integers(0, 8), min_size=1, max_size=12))
def test_auc_is_that_of_scikit_learn(positives: list[int], negatives: list[int]) -> None:
    from sklearn.metrics import roc_auc_score

    estimate = separation.auc([p / 8 for p in positives], [n / 8 for n in negatives])
    labels = [1] * len(positives) + [0] * len(negatives)
    assert estimate.value == pytest.approx(roc_auc_score(labels, positives + negatives))
    assert 0 <= estimate.low <= estimate.value <= estimate.high <= 1
    assert estimate.n == len(labels)


def test_auc_of_few_suspects_is_not_certain_even_where_they_separate() -> None:
    few, many = separation.auc([1.0] * 5, [0.0] * 5), separation.auc([1.0] * 50, [0.0] * 50)
    assert few.value == many.value == 1.0
    assert few.low < 0.8 < many.low < 1.0


def test_the_interval_of_auc_covers_it() -> None:
    """Normal scores one standard deviation apart: area = Phi(1 / sqrt 2)."""
    drawn = np.random.default_rng(0)
    truth = scipy.stats.norm.cdf(1 / 2**0.5)
    inside = 0
    for _ in range(400):
        estimate = separation.auc(drawn.normal(1, 1, 15).tolist(), drawn.normal(0, 1, 15).tolist())
        inside += estimate.low <= truth <= estimate.high
    assert inside / 400 >= 0.92


def test_tpr_needs_enough_negatives_for_its_fpr() -> None:
    positives, negatives = [0.9, 0.5, 0.1], [0.0, 0.1, 0.2, 0.3]
    assert separation.tpr_at_fpr(positives, negatives, 0.19) is None
    strict = separation.tpr_at_fpr(positives, negatives, 0.2)
    assert strict is not None
    assert strict.value == pytest.approx(2 / 3)
    assert (strict.low, strict.high) == pytest.approx(intervals.clopper_pearson(2, 3))
    loose = separation.tpr_at_fpr(positives, negatives, 0.8)
    assert loose is not None
    assert loose.value == 1.0


def test_tpr_threshold_lets_no_more_innocents_through_than_it_says() -> None:
    """A new innocent model, exchangeable with the negatives, counts as found at most as often as the FPR."""
    drawn = np.random.default_rng(0)
    found = 0.0
    for _ in range(2000):
        rates = drawn.random(10).tolist()
        estimate = separation.tpr_at_fpr(rates[:1], rates[1:], 0.2)
        assert estimate is not None
        found += estimate.value
    assert found / 2000 <= 0.2 + 0.03


def test_aruc_is_the_area_that_a_fine_grid_gives() -> None:
    positives, negatives = [1.0, 0.9, 0.4], [0.0, 0.1, 0.6]
    grid = (np.arange(100_000) + 0.5) / 100_000
    robust = (np.array(positives)[:, None] >= grid).mean(axis=0)
    unique = (np.array(negatives)[:, None] < grid).mean(axis=0)
    estimate = separation.aruc(positives, negatives)
    assert estimate.value == pytest.approx(np.minimum(robust, unique).mean(), abs=1e-4)
    assert estimate.low <= estimate.value <= estimate.high
    assert separation.aruc([1.0] * 3, [0.0] * 4).value == 1.0
    assert separation.aruc([0.0], [1.0]).value == 0.0
