"""Two methods read on the same suspects: McNemar's exact test, Tango's interval, and what so few could show. Pure functions.

A *pair* is one reading of one suspect by both methods, and whether each claims it. A *cluster* is all pairs of what is not
independent: of one suspect over seeds, of one source over its models. A cluster counts once, however many pairs it has.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from amb.evaluation.intervals import Estimate

LEVEL: Final = 0.05
"""At which a difference counts as shown."""
POWER: Final = 0.8
"""Probability with which a difference that is said to be detectable is shown."""

Pair = tuple[bool, bool]
"""Whether the first method claims, and whether the second does."""


class Discordance(NamedTuple):
    """How many clusters there are, and on how many of them only one of two methods claims: whole, or sums of shares."""

    first: float
    """By the first method alone."""
    second: float
    """By the second alone."""
    n: float
    """All clusters, those on which both or neither claim among them."""


class PairedResult(NamedTuple):
    """What clusters of pairs say of two methods."""

    difference: Estimate
    """Share claimed by the first less that by the second, -1..1; each cluster counts once, by its share of pairs."""
    first_share: float
    second_share: float
    first_more: int
    """Clusters of which the first claims more pairs than the second."""
    second_more: int
    p_value: float
    """Two-sided, of the sign test over the clusters that differ."""


def compare_pairs(clusters: Sequence[Sequence[Pair]], confidence: float = 0.95) -> PairedResult:
    """Test and interval over clusters; none of them may be empty, and there has to be one.

    Where each cluster is one pair the test is McNemar's exact one. Where clusters are larger it is the sign test over
    clusters, by which of the methods claims more of each; it is exact where clusters are independent and, if the methods
    are equally good, each cluster is as likely to have come out the other way round. The interval takes a cluster's shares
    of pairs for its counts: the mean of a cluster varies no more than a single pair does, so it is too wide rather than too
    narrow.
    """
    n = len(clusters)
    alone = (_sum_shares(clusters, lambda a, b: a and not b), _sum_shares(clusters, lambda a, b: b and not a))
    leads = [sum(a - b for a, b in cluster) for cluster in clusters]
    first_more, second_more = sum(lead > 0 for lead in leads), sum(lead < 0 for lead in leads)
    return PairedResult(
        difference=tango_interval(Discordance(*alone, n), confidence),
        first_share=_sum_shares(clusters, lambda a, _: a) / n,
        second_share=_sum_shares(clusters, lambda _, b: b) / n,
        first_more=first_more,
        second_more=second_more,
        p_value=sign_test(first_more, second_more),
    )


def _sum_shares(clusters: Sequence[Sequence[Pair]], holds: Callable[[bool, bool], bool]) -> float:
    """Over clusters, the share of a cluster's pairs for which something holds."""
    return sum(sum(holds(*pair) for pair in cluster) / len(cluster) for cluster in clusters)


def sign_test(first: int, second: int) -> float:
    """Two-sided p of `first` and `second` discordant pairs, if either way is as likely: twice a binomial tail, at most 1.

    McNemar (1947), Psychometrika 12, 153-157, with the binomial distribution itself in place of chi-square. Pairs on which
    the methods agree say nothing of which is better. 1 where none differs.
    """
    from scipy.stats import binom

    return min(1.0, 2 * float(binom.cdf(min(first, second), first + second, 0.5)))


def tango_interval(counts: Discordance, confidence: float = 0.95) -> Estimate:
    """Difference of two paired proportions, first less second, with the score interval of Tango.

    Tango (1998), Statistics in Medicine 17, 891-908: the differences d with |first - second - n d| at most z standard
    errors, taken at the maximum likelihood under d. Stays in -1..1, and is open where no pair differs: +- z^2 / (n + z^2).
    """
    from scipy.optimize import brentq
    from scipy.stats import norm

    first, second, n = counts
    z, difference = float(norm.ppf((1 + confidence) / 2)), (first - second) / n

    def excess(d: float) -> float:
        half = (first + second - (2 * n - first + second) * d) / (4 * n)
        root = max(0.0, half**2 + second * d * (1 - d) / (2 * n)) ** 0.5  # below 0 by rounding alone
        alone = half + root  # P[second alone], most likely under d
        return float((first - second - n * d) ** 2 - z**2 * n * (2 * alone + d * (1 - d)))

    hair = 1e-9  # the difference itself solves the equation where no pair differs
    low = brentq(excess, -1.0, difference - hair) if difference - hair > -1 else -1.0
    high = brentq(excess, difference + hair, 1.0) if difference + hair < 1 else 1.0
    return Estimate(difference, low, high, round(n))


def fewest_discordant(level: float = LEVEL) -> int:
    """How many clusters have to differ, all of them the same way, before p is at most `level`: 6 at 0.05."""
    n = 1
    while sign_test(n, 0) > level:
        n += 1
    return n


def detectable_difference(n: int, level: float = LEVEL, power: float = POWER) -> float | None:
    """The smallest difference that n clusters would show with probability `power`, at best; None where they show none.

    At best: where it is always the same method that claims alone. The number of such clusters is then binomial(n,
    difference) and has to reach `fewest_discordant`. With clusters that differ the other way it takes a larger difference.
    """
    from scipy.stats import beta

    needed = fewest_discordant(level)
    return float(beta.ppf(power, needed, n - needed + 1)) if n >= needed else None
