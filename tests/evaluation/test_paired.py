"""Paired comparison against scipy, brute force, numerical likelihoods and published values; never against itself."""

from __future__ import annotations

from itertools import product
from math import comb

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.stats import binom, binomtest, multinomial, norm

from amb.evaluation import paired
from amb.evaluation.paired import Discordance, compare_pairs, sign_test, tango_interval

PAIRS = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=5)
CLUSTERS = st.lists(PAIRS, min_size=1, max_size=12)


@settings(deadline=None)
@given(st.integers(0, 40), st.integers(0, 40))
def test_the_sign_test_is_scipys_binomial_test(first: int, second: int) -> None:
    expected = binomtest(first, first + second, 0.5).pvalue if first + second else 1.0
    assert sign_test(first, second) == pytest.approx(expected)
    assert sign_test(first, second) == sign_test(second, first)


def test_the_sign_test_counts_outcomes() -> None:
    """Of 2^9 equally likely outcomes of 9 discordant pairs, those at least as uneven as 8 to 1."""
    uneven = sum(abs(sum(outcome) * 2 - 9) >= 7 for outcome in product((0, 1), repeat=9))
    assert sign_test(8, 1) == pytest.approx(uneven / 2**9)


@pytest.mark.parametrize(
    ("counts", "confidence", "low", "high"),
    [
        # Fagerland, Lydersen and Laake 2014, Statistics in Medicine 33, 2850-2875, table II: airways of 21 children
        (Discordance(1, 7, 21), 0.95, -0.517, -0.026),
        # R, PropCIs 0.3-0: scoreci.mp(25, 28, 618, conf.level = 0.9), whose first count is subtracted
        (Discordance(28, 25, 618), 0.90, -0.0148, 0.0247),
    ],
)
def test_tangos_interval_has_published_values(counts: Discordance, confidence: float, low: float, high: float) -> None:
    found = tango_interval(counts, confidence)
    digits = 0.5 * 10.0 ** -len(str(low).partition(".")[2])
    assert found.low == pytest.approx(low, abs=digits)
    assert found.high == pytest.approx(high, abs=digits)


def score(first: int, second: int, n: int, d: float) -> float:
    """|difference - d| in standard errors at the maximum of the trinomial likelihood under d, which is searched for."""
    least, most = max(0.0, -d), (1 - d) / 2

    def loss(alone: float) -> float:
        counts, chances = (first, second, n - first - second), (alone + d, alone, 1 - d - 2 * alone)
        return -sum(k * np.log(max(p, 1e-300)) for k, p in zip(counts, chances, strict=True) if k)

    alone = minimize_scalar(loss, bounds=(least, most), method="bounded", options={"xatol": 1e-13}).x
    return abs(first - second - n * d) / (n * (2 * alone + d - d**2)) ** 0.5


@pytest.mark.parametrize("counts", [(1, 7, 21), (5, 0, 12), (3, 3, 9), (12, 2, 40), (1, 0, 200)])
def test_the_ends_of_the_interval_lie_where_the_score_is_z(counts: tuple[int, int, int]) -> None:
    found = tango_interval(Discordance(*counts))
    z = norm.ppf(0.975)
    assert score(*counts, found.low) == pytest.approx(z, rel=1e-3)
    assert score(*counts, found.high) == pytest.approx(z, rel=1e-3)
    inside = np.linspace(found.low, found.high, 9)[1:-1]
    assert all(score(*counts, d) < z for d in inside)


@pytest.mark.parametrize("n", [1, 6, 30])
def test_where_no_pair_differs_the_interval_is_known(n: int) -> None:
    z = norm.ppf(0.975)
    found = tango_interval(Discordance(0, 0, n))
    assert (found.value, found.low, found.high) == pytest.approx((0, -(z**2) / (n + z**2), z**2 / (n + z**2)))


@settings(deadline=None)
@given(st.data(), st.integers(1, 60))
def test_the_interval_holds_the_difference_and_turns_round_with_the_methods(data: st.DataObject, n: int) -> None:
    first = data.draw(st.integers(0, n))
    second = data.draw(st.integers(0, n - first))
    found, turned = tango_interval(Discordance(first, second, n)), tango_interval(Discordance(second, first, n))
    assert -1 <= found.low <= found.value <= found.high <= 1
    assert (found.low, found.high) == pytest.approx((-turned.high, -turned.low), abs=1e-8)
    narrow = tango_interval(Discordance(first, second, n), 0.8)
    assert found.low <= narrow.low + 1e-9 and narrow.high <= found.high + 1e-9


@pytest.mark.parametrize("chances", [(0.3, 0.1), (0.2, 0.2), (0.6, 0.05)])
def test_the_interval_covers_the_truth_as_often_as_it_says(chances: tuple[float, float]) -> None:
    """Exactly, over every table of 20 pairs; a score interval may fall a little below its confidence, never far."""
    n, (first, second) = 20, chances
    covered = 0.0
    for b in range(n + 1):
        for c in range(n + 1 - b):
            found = tango_interval(Discordance(b, c, n))
            if found.low <= first - second <= found.high:
                covered += multinomial.pmf((b, c, n - b - c), n, (first, second, 1 - first - second))
    assert 0.93 <= covered <= 1


@settings(deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=40))
def test_clusters_of_one_pair_are_mcnemars_test(pairs: list[tuple[bool, bool]]) -> None:
    found = compare_pairs([[pair] for pair in pairs])
    table = np.zeros((2, 2), dtype=int)
    for a, b in pairs:
        table[int(a), int(b)] += 1
    expected = (
        binomtest(int(table[1, 0]), int(table[1, 0] + table[0, 1]), 0.5).pvalue if table[1, 0] + table[0, 1] else 1.0
    )
    assert found.p_value == pytest.approx(expected)
    assert (found.first_more, found.second_more) == (table[1, 0], table[0, 1])
    assert found.difference.value == pytest.approx(found.first_share - found.second_share)
    assert found.first_share == pytest.approx(table[1].sum() / len(pairs))
    assert found.second_share == pytest.approx(table[:, 1].sum() / len(pairs))
    assert found.difference.n == len(pairs)


@settings(deadline=None)
@given(CLUSTERS, st.integers(2, 4))
def test_more_pairs_of_the_same_clusters_are_no_more_evidence(clusters: list[list[tuple[bool, bool]]], n: int) -> None:
    once, often = compare_pairs(clusters), compare_pairs([cluster * n for cluster in clusters])
    assert once.p_value == often.p_value
    assert (once.difference.low, once.difference.high) == pytest.approx((often.difference.low, often.difference.high))


@settings(deadline=None)
@given(CLUSTERS)
def test_the_methods_in_another_order_give_the_same_p(clusters: list[list[tuple[bool, bool]]]) -> None:
    found = compare_pairs(clusters)
    turned = compare_pairs([[(b, a) for a, b in cluster] for cluster in clusters])
    assert (turned.p_value, turned.first_more, turned.second_more) == (
        found.p_value,
        found.second_more,
        found.first_more,
    )
    assert turned.difference.value == pytest.approx(-found.difference.value)
    assert -1 <= found.difference.low <= found.difference.value + 1e-9
    assert found.difference.value - 1e-9 <= found.difference.high <= 1


def test_the_test_over_clusters_rejects_no_more_often_than_its_level() -> None:
    """Equal methods whose pairs within a cluster all come out alike: 8 clusters of 5, every outcome; pairs would lie."""
    level, rejected, fooled = 0.05, 0.0, 0.0
    for outcome in product(((True, False), (False, True)), repeat=8):
        clusters = [[pair] * 5 for pair in outcome]
        rejected += compare_pairs(clusters).p_value <= level
        fooled += compare_pairs([[pair] for cluster in clusters for pair in cluster]).p_value <= level
    assert rejected / 2**8 <= level
    assert fooled / 2**8 > 3 * level


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 10_000))
def test_an_interval_over_clusters_is_no_narrower_than_the_spread_between_them(seed: int) -> None:
    """The variance of the mean over clusters, which it allows for, is at least that of the clusters' own differences."""
    drawn = np.random.default_rng(seed)
    clusters = [[(bool(a), bool(b)) for a, b in drawn.integers(0, 2, (drawn.integers(1, 6), 2))] for _ in range(30)]
    found = compare_pairs(clusters).difference
    nets = [sum(a - b for a, b in cluster) / len(cluster) for cluster in clusters]
    own = 1.96 * float(np.std(nets, ddof=1)) / 30**0.5
    assert (found.high - found.low) / 2 >= 0.9 * own


@pytest.mark.parametrize(("level", "n"), [(0.05, 6), (0.01, 8), (0.5, 2), (1e-6, 21)])
def test_so_many_have_to_differ_the_same_way(level: float, n: int) -> None:
    assert paired.fewest_discordant(level) == n
    assert 2 * 0.5**n <= level < 2 * 0.5 ** (n - 1)


@pytest.mark.parametrize("n", [6, 10, 35])
def test_a_detectable_difference_is_found_as_often_as_it_says(n: int) -> None:
    """Power by going through every number of discordant pairs, all of them the same way."""
    found = paired.detectable_difference(n)
    assert found is not None

    def power(difference: float) -> float:
        return sum(
            comb(n, k) * difference**k * (1 - difference) ** (n - k) for k in range(n + 1) if sign_test(k, 0) <= 0.05
        )

    assert power(found) == pytest.approx(0.8)
    assert power(found - 0.01) < 0.8


def test_so_few_show_nothing() -> None:
    assert paired.detectable_difference(5) is None
    assert all(sign_test(k, n - k) > 0.05 for n in range(6) for k in range(n + 1))


def test_pairs_that_differ_the_other_way_take_a_larger_difference() -> None:
    """What `at best` leaves out: with a tenth of the pairs the other way, the same difference is shown less often."""
    n, found = 30, paired.detectable_difference(30)
    assert found is not None
    other = 0.1
    power = 0.0
    for m in range(n + 1):
        ways = binom.pmf(np.arange(m + 1), m, (found + other) / (found + 2 * other))
        rejected = np.array([sign_test(k, m - k) <= 0.05 for k in range(m + 1)])
        power += binom.pmf(m, n, found + 2 * other) * float(ways[rejected].sum())
    assert power < 0.8
