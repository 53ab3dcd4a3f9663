"""How well a method's rates tell positive suspects from negative ones: areas and shares over suspects."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from amb.evaluation.claims import supported_fpr
from amb.evaluation.intervals import Estimate, clopper_pearson
from amb.evaluation.rates import Floats, Ints

_SIDES: Final = ("left", "right")


def auc(positives: Sequence[float], negatives: Sequence[float], confidence: float = 0.95) -> Estimate:
    """P[a positive's rate exceeds a negative's], ties counted half: the area under the ROC curve over suspects.

    Interval: Newcombe (2006), Statistics in Medicine 25, 559-573, method 5. It solves |area - theta| = z se(theta)
    with Hanley and McNeil's variance, and stays honest where the suspects separate perfectly.
    """
    from scipy.optimize import brentq
    from scipy.stats import norm

    m, n = len(positives), len(negatives)
    ordered = np.sort(np.asarray(negatives, dtype=np.float64))
    below, not_above = (int(np.searchsorted(ordered, positives, side).sum()) for side in _SIDES)
    area = (below + not_above) / 2 / (m * n)
    z = float(norm.ppf((1 + confidence) / 2))

    def excess(theta: float) -> float:
        mean_size = (m + n) / 2 - 1
        variance = theta * (1 - theta) / (m * n) * (1 + mean_size * ((1 - theta) / (2 - theta) + theta / (1 + theta)))
        return float((area - theta) ** 2 - z**2 * variance)

    hair = 1e-12  # the area itself solves the equation where it is 0 or 1
    low = brentq(excess, 0.0, area - hair) if area > 0 else 0.0
    high = brentq(excess, area + hair, 1.0) if area < 1 else 1.0
    return Estimate(area, low, high, m + n)


def tpr_at_fpr(positives: Sequence[float], negatives: Sequence[float], fpr: float) -> Estimate | None:
    """Share of positive suspects that are told from the negatives at a false positive rate of at most `fpr`.

    A positive counts where its calibrated p-value is at most `fpr`: the threshold comes from the negatives alone
    and is judged on none of them. None where so few negatives cannot support such a rate. Interval: Clopper-Pearson
    over the positive suspects.
    """
    if fpr < supported_fpr(len(negatives)):
        return None
    at_least = len(negatives) - np.searchsorted(np.sort(negatives), positives)
    found = int(((1 + at_least) / (len(negatives) + 1) <= fpr).sum())  # `calibrated_p` of all at once
    return Estimate(found / len(positives), *clopper_pearson(found, len(positives)), len(positives))


def aruc(
    positives: Sequence[float], negatives: Sequence[float], confidence: float = 0.95, n_resamples: int = 2000
) -> Estimate:
    """Area under min(robustness, uniqueness) as the threshold goes from 0 to 1 (IPGuard, section 5.1).

    Robustness is the share of positives with a rate of at least the threshold, uniqueness the share of negatives
    below it. The integral is exact. Interval: percentile bootstrap over suspects, positives and negatives apart.
    """
    drawn = np.random.default_rng(0)
    edges, places = np.unique(np.concatenate([[0.0, 1.0], positives, negatives]), return_inverse=True)
    p, n = places[2 : 2 + len(positives)], places[2 + len(positives) :]
    areas = [_measure_aruc(drawn.choice(p, len(p)), drawn.choice(n, len(n)), edges) for _ in range(n_resamples)]
    low, high = np.quantile(areas, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Estimate(_measure_aruc(p, n, edges), float(low), float(high), len(p) + len(n))


def _measure_aruc(positives: Ints, negatives: Ints, edges: Floats) -> float:
    """Between two neighbouring edges both shares are constant, so the area is a sum of rectangles.

    A rate is given as its place among the edges, so a resample is counted and never sorted.
    """
    lower, innocent = (
        np.bincount(each, minlength=len(edges)).cumsum()[:-1] / len(each) for each in (positives, negatives)
    )
    return float((np.diff(edges) * np.minimum(1 - lower, innocent)).sum())
