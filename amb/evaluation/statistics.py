"""From evidence to a verdict: rates, thresholds, tests, intervals and bounds. Pure functions.

Equation numbers are those of the ActiveMark paper (arXiv 2510.04966). A *trial* is one trigger; its *symbols* are
the bits or labels read on it; *rho* is how many of them are wrong; a trial is *detected* where rho <= tau.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Final, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from amb.api.records import Evidence, Verdict
from amb.api.types import Basis, Null

Rule = Literal["<=", "<"]
"""`<=`: detected with at most tau errors (eq. 4, 5). `<`: with fewer than tau, as the paper writes in eq. 6."""

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
_MOST_KEPT: Final = 4_000_000
"""Places of permuted pairs that are kept, or made at once: 32 MB."""


class Interval(NamedTuple):
    """A confidence interval of a probability."""

    low: float
    high: float


# What was measured


def errors(evidence: Evidence) -> Ints:
    """Rho of each trial: its wrong symbols, (trials,) in 0..symbols (eq. 3)."""
    return np.asarray((evidence.expected != evidence.observed).sum(axis=1), dtype=np.int64)


def bit_error_rate(evidence: Evidence) -> float:
    """Share of wrong symbols over all trials, in 0..1."""
    return float((evidence.expected != evidence.observed).mean())


def detection_rate(rho: ArrayLike, tau: int, rule: Rule = "<=") -> float:
    """R(tau): share of trials detected (eq. 5)."""
    rho = np.asarray(rho)
    return float((rho <= tau).mean() if rule == "<=" else (rho < tau).mean())


def detection_curve(rho: ArrayLike, n_symbols: int) -> Floats:
    """R(tau) for tau = 0 ... n_symbols, (n_symbols + 1,): the paper's Fig. 3."""
    counts = np.bincount(np.asarray(rho), minlength=n_symbols + 1)
    return np.asarray(counts.cumsum() / counts.sum(), dtype=np.float64)


# The null of coin flips


def trial_fpr(n_symbols: int, tau: int, agreement: ArrayLike = 0.5, rule: Rule = "<=") -> Floats:
    """P[rho <= tau] where each symbol agrees with probability `agreement`, by chance (eq. 6).

    rho is binomial(n_symbols, 1 - agreement); `agreement` may be an array, one entry a trial.
    """
    from scipy.stats import binom

    most = tau if rule == "<=" else tau - 1
    return np.asarray(binom.cdf(most, n_symbols, 1 - np.asarray(agreement, dtype=np.float64)))


def tau_for_fpr(n_symbols: int, epsilon: float, agreement: float = 0.5, rule: Rule = "<=") -> int | None:
    """Largest tau with `trial_fpr` <= epsilon (eq. 7); None where not even tau = 0 achieves it."""
    taus = range(n_symbols + 1)
    allowed = [tau for tau in taus if trial_fpr(n_symbols, tau, agreement, rule) <= epsilon]
    return allowed[-1] if allowed else None


def binomial_p(n_detected: int, n_trials: int, rate: float) -> float:
    """P[at least n_detected of n_trials detected] where each is, independently, with probability `rate`."""
    from scipy.stats import binom

    return float(binom.sf(n_detected - 1, n_trials, rate))


def poisson_binomial_p(n_detected: int, rates: ArrayLike) -> float:
    """P[at least n_detected detected] where trial i is detected with probability rates[i] (eq. 12)."""
    return float(_sum_poisson_binomial(np.asarray(rates, dtype=np.float64))[n_detected])


# Does any message get through?


def permutation_p(evidence: Evidence, n_permutations: int = 9999, seed: int = 0) -> float:
    """One-sided p-value that a trial's symbols agree with its own message more than with another trial's.

    The statistic is the total agreement; the null permutes messages across trials (Phipson and Smyth 2010, with
    the observed order counted in, so p is never 0). Where all trials share one message it is 1: nothing to tell
    apart.
    """
    agreement = _count_agreements(evidence.expected, evidence.observed, evidence.alphabet).ravel()
    n = len(evidence.expected)
    seen = agreement[:: n + 1].sum()
    at_least = sum(
        int((agreement.take(places).sum(axis=1) >= seen).sum()) for places in _permute(n, n_permutations, seed)
    )
    return (1 + at_least) / (1 + n_permutations)


def _permute(n: int, n_permutations: int, seed: int) -> Iterable[Ints]:
    """Where in a flat (n, n) table the pairs of each permutation lie, (permutations, n) in parts; small ones are kept."""
    if n * n_permutations <= _MOST_KEPT:
        return (_draw_permutations(n, n_permutations, seed),)
    generator, at_once = np.random.default_rng(seed), max(1, _MOST_KEPT // n)
    parts = (min(at_once, n_permutations - start) for start in range(0, n_permutations, at_once))
    return (_place_permutations(generator, n, part) for part in parts)


@lru_cache(maxsize=8)
def _draw_permutations(n: int, n_permutations: int, seed: int) -> Ints:
    """The same for every cell of a method, and what takes longest in its verdict."""
    return _place_permutations(np.random.default_rng(seed), n, n_permutations)


def _place_permutations(generator: np.random.Generator, n: int, n_permutations: int) -> Ints:
    columns = np.stack([generator.permutation(n) for _ in range(n_permutations)])
    return np.asarray(columns + np.arange(n) * n, dtype=np.int64)


def calibrated_p(rate: float, negative_rates: Sequence[float]) -> float:
    """Conformal p-value: rank of a detection rate among those of negatives, (1 + #{>= rate}) / (n + 1).

    Valid where the suspect, under the null, is exchangeable with the negatives; never below 1 / (n + 1).
    """
    return (1 + sum(negative >= rate for negative in negative_rates)) / (len(negative_rates) + 1)


class ValidTest(NamedTuple):
    """A test that is valid over models, and what it says of one."""

    p_value: float
    basis: Basis
    level: float
    claim: bool


EXACT_LEVEL = 1e-6
"""False positive rate of a claim where the null is exact, unless the user says otherwise."""


def exact_test(evidence: Evidence, level: float = EXACT_LEVEL) -> ValidTest:
    """P[as many right symbols] where each is right with probability 1 / alphabet, independently: binomial over all symbols.

    Exact for every model that was made without the key, if the method's null is. Symbols that could not be read count as
    wrong, so a difference of nothing gives p = 1.
    """
    right = int((evidence.expected == evidence.observed).sum())
    p_value = binomial_p(right, evidence.expected.size, 1 / evidence.alphabet)
    return ValidTest(p_value, "exact", level, p_value <= level)


def source_test(rate: float, rates_of_sources: Mapping[str, Sequence[float]]) -> ValidTest:
    """The rank of a rate among sources of innocent models, each by the largest rate of its models: (1 + #{>= rate}) / (n + 1).

    Valid where the suspect, if innocent, is exchangeable with the sources, however many relatives each of them has: the
    largest of a source's rates is at least that of the model that the suspect would be exchanged with. The level is the
    smallest that n sources support, 1 / (n + 1).
    """
    p_value = calibrated_p(rate, [max(rates) for rates in rates_of_sources.values()])
    level = supported_fpr(len(rates_of_sources))
    return ValidTest(p_value, "calibrated", level, bool(rates_of_sources) and p_value <= level)


def correct_holm(p_values: Sequence[float]) -> list[float]:
    """Step-down p-values of several tests at once (Holm 1979): claims at `level` are then false at most `level` of the time.

    The k-th smallest of n is multiplied by n - k + 1, never falls below an earlier one, and is at most 1.
    """
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    corrected, largest = [0.0] * len(p_values), 0.0
    for rank, at in enumerate(order):
        largest = max(largest, min(1.0, p_values[at] * (len(p_values) - rank)))
        corrected[at] = largest
    return corrected


# Intervals and the bounds of the paper


@lru_cache(maxsize=4096)
def clopper_pearson(successes: int, n: int, confidence: float = 0.95) -> Interval:
    """Exact two-sided interval of a proportion; kept, for many cells share it."""
    from scipy.stats import binomtest

    interval = binomtest(successes, n).proportion_ci(confidence, method="exact")
    return Interval(float(interval.low), float(interval.high))


def clopper_pearson_upper(successes: ArrayLike, n: ArrayLike, alpha: float) -> Floats:
    """One-sided upper limit that holds with probability at least 1 - alpha (eq. 11)."""
    from scipy.stats import beta

    successes, n = np.broadcast_arrays(np.asarray(successes, dtype=np.float64), np.asarray(n, dtype=np.float64))
    limit = beta.ppf(1 - alpha, successes + 1, np.maximum(n - successes, 1e-12))
    return np.where(successes >= n, 1.0, limit)


def clopper_pearson_lower(successes: ArrayLike, n: ArrayLike, alpha: float) -> Floats:
    """One-sided lower limit that holds with probability at least 1 - alpha (eq. 11)."""
    successes, n = np.broadcast_arrays(np.asarray(successes, dtype=np.float64), np.asarray(n, dtype=np.float64))
    return 1 - clopper_pearson_upper(n - successes, n, alpha)


class BitAgreement(NamedTuple):
    """How often the symbols of each trigger agree over a set of models (eq. 9, 10)."""

    successes: Ints  # (trials,)
    n: int
    """Symbols counted for each trigger: models x symbols."""


def bit_agreement(models: Sequence[Evidence]) -> BitAgreement:
    """Count agreeing symbols per trigger over models read with the same key (eq. 10)."""
    agreeing = sum((model.expected == model.observed).sum(axis=1) for model in models)
    return BitAgreement(np.asarray(agreeing, dtype=np.int64), len(models) * models[0].expected.shape[1])


def false_detection_bound(negatives: Sequence[Evidence], tau: int, alpha: float) -> float:
    """Delta such that an independent model has R > Delta with probability at most alpha (eq. 13).

    Each trigger's agreement r is replaced by its upper Clopper-Pearson limit over the negatives (eq. 11), at level
    alpha / trials so that all limits hold at once with probability 1 - alpha; the number of detected trials is then
    Poisson-binomial (eq. 12). With no negatives nothing is known and the bound is 1.
    """
    if not negatives:
        return 1.0
    return _bound_of(bit_agreement(negatives), negatives[0].expected.shape[1], tau, alpha)


def least_bound(n_negatives: int, n_trials: int, n_symbols: int, tau: int, alpha: float) -> float:
    """The bound of eq. 13 where no symbol of any negative agrees: with so few negatives none is below it, whatever they read."""
    silent = BitAgreement(np.zeros(n_trials, dtype=np.int64), n_negatives * n_symbols)
    return _bound_of(silent, n_symbols, tau, alpha)


def _bound_of(agreement: BitAgreement, n_symbols: int, tau: int, alpha: float) -> float:
    return _find_bound(tuple(agreement.successes.tolist()), agreement.n, n_symbols, tau, alpha)


@lru_cache(maxsize=256)
def _find_bound(successes: tuple[int, ...], n: int, n_symbols: int, tau: int, alpha: float) -> float:
    """Kept: all positives of a method are judged by the same negatives."""
    n_trials = len(successes)
    limits = clopper_pearson_upper(successes, n, alpha / n_trials)
    tail = _sum_poisson_binomial(trial_fpr(n_symbols, tau, limits))  # P[detected >= k], k = 0 ... trials + 1
    return float((np.argmax(tail <= alpha) - 1) / n_trials)


def supported_fpr(n_negatives: int) -> float:
    """Smallest model-level false positive rate that n negatives can support, 1 / (n + 1)."""
    return 1 / (n_negatives + 1)


# Over seeds, and over suspects


class Estimate(NamedTuple):
    """A figure with its 95 % interval, and how many draws it rests on."""

    value: float
    low: float
    high: float
    n: int


def rate_over_seeds(detected: Sequence[float], trials: Sequence[int], confidence: float = 0.95) -> Estimate:
    """Mean of a rate over seeds: the interval of Korn and Graubard (1998) with a seed as the cluster.

    Clopper-Pearson at an effective number of trials: as many as would give the variance that is seen between seeds,
    less the loss of a t-distribution with seeds - 1 degrees of freedom, and never more than there are. Where the
    seeds agree exactly, and with one seed, it is Clopper-Pearson over all trials.
    """
    from scipy.special import betaincinv, stdtrit  # the quantiles of beta and t, a hundred times as fast as scipy.stats

    hits, sizes = np.asarray(detected, dtype=np.float64), np.asarray(trials, dtype=np.float64)
    n, n_seeds = float(sizes.sum()), len(hits)
    rate = float(hits.sum() / n)
    if n_seeds > 1:
        residuals = hits - rate * sizes  # linearised variance of a ratio (Cochran 1977, eq. 6.13)
        variance = n_seeds / (n_seeds - 1) * float(residuals @ residuals) / n**2
        if variance > 0:
            tail = (1 + confidence) / 2
            n = min(n, rate * (1 - rate) / variance * float((stdtrit(n - 1, tail) / stdtrit(n_seeds - 1, tail)) ** 2))
    alpha, hit = 1 - confidence, rate * n
    low = float(betaincinv(hit, n - hit + 1, alpha / 2)) if hit > 0 else 0.0
    high = float(betaincinv(hit + 1, n - hit, 1 - alpha / 2)) if hit < n else 1.0
    return Estimate(rate, low, high, n_seeds)


def mean_over_seeds(values: Sequence[float], confidence: float = 0.95) -> Estimate:
    """Mean with Student's t interval; with one value there is no interval and the ends are NaN."""
    from scipy.special import stdtrit

    array = np.asarray(values, dtype=np.float64)
    n, mean = len(array), float(array.mean())
    if n == 1:
        return Estimate(mean, float("nan"), float("nan"), 1)
    half = float(stdtrit(n - 1, (1 + confidence) / 2) * array.std(ddof=1) / n**0.5)
    return Estimate(mean, mean - half, mean + half, n)


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


_SIDES: Final = ("left", "right")


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


# The verdict


class Negative(NamedTuple):
    """An innocent model read with the same key."""

    evidence: Evidence
    source: str
    """The model that it was made from."""


def decide(
    evidence: Evidence,
    read: Sequence[Negative],
    tau: int,
    alpha: float,
    *,
    null: Null = "none",
    source: str | None = None,
    level: float = EXACT_LEVEL,
) -> Verdict:
    """The verdict on one suspect, the same way for every method.

    `read` are innocent models read with the same key, never the suspect itself; `source` is the suspect's own where it is
    innocent, for it is not ranked among its relatives. The claim rests on the exact null where the method has one, else
    on the sources of the negatives. `paper_rule` says beside it whether R exceeds the bound of eq. 13.
    """
    negatives = [each.evidence for each in read]
    rho = errors(evidence)
    n_trials, n_symbols = evidence.expected.shape
    n_detected = int((rho <= tau).sum())
    rate = n_detected / n_trials
    negative_rates = [detection_rate(errors(negative), tau) for negative in negatives]
    bound = false_detection_bound(negatives, tau, alpha)
    sources: dict[str, list[float]] = {}
    for each, negative_rate in zip(read, negative_rates, strict=True):
        if each.source != source:
            sources.setdefault(each.source, []).append(negative_rate)
    test = exact_test(evidence, level) if null == "exact" else source_test(rate, sources)
    return Verdict(
        claim=test.claim,
        p_value=test.p_value,
        basis=test.basis,
        level=test.level,
        n_sources=len(sources),
        alphabet=evidence.alphabet,
        paper_rule=rate > bound,
        bound=bound,
        trial_fpr=_fair_trial_fpr(n_symbols, tau, evidence.alphabet),
        detection_rate=rate,
        interval=clopper_pearson(n_detected, n_trials),
        curve=tuple(float(value) for value in detection_curve(rho, n_symbols)),
        bit_error_rate=bit_error_rate(evidence),
        tau=tau,
        alpha=alpha,
        p_values=p_values(evidence, negative_rates, tau),
        margin=rate - max(negative_rates) if negative_rates else None,
        n_trials=n_trials,
        n_negatives=len(negatives),
        fpr_supported=supported_fpr(len(negatives)),
    )


def p_values(evidence: Evidence, negative_rates: Sequence[float], tau: int) -> Mapping[str, float]:
    """Three nulls, each under its own name.

    `binomial`: symbols are fair draws from the alphabet; a heuristic where the method injects the message.
    `permutation`: no message gets through. `calibrated`: the suspect is one more negative.
    """
    n_trials, n_symbols = evidence.expected.shape
    rho = errors(evidence)
    return {
        "binomial": _detected_by_chance(int((rho <= tau).sum()), n_trials, n_symbols, tau, evidence.alphabet),
        "permutation": permutation_p(evidence),
        "calibrated": calibrated_p(detection_rate(rho, tau), negative_rates),
    }


@lru_cache(maxsize=4096)
def _detected_by_chance(n_detected: int, n_trials: int, n_symbols: int, tau: int, alphabet: int) -> float:
    """P[at least so many trials detected] where symbols are fair draws; kept, for many cells share it."""
    return binomial_p(n_detected, n_trials, _fair_trial_fpr(n_symbols, tau, alphabet))


@lru_cache(maxsize=256)
def _fair_trial_fpr(n_symbols: int, tau: int, alphabet: int) -> float:
    """Eq. 6 where symbols are fair draws from the alphabet."""
    return float(trial_fpr(n_symbols, tau, 1 / alphabet))


def _count_agreements(expected: NDArray[np.integer], observed: NDArray[np.integer], alphabet: int) -> Floats:
    """Symbols that agree between trial i's reading and trial j's message, (trials, trials)."""
    total = np.zeros((len(observed), len(expected)), dtype=np.float64)
    for symbol in range(alphabet):
        total += (observed == symbol).astype(np.float64) @ (expected == symbol).astype(np.float64).T
    return total


def _sum_poisson_binomial(rates: Floats) -> Floats:
    """P[sum of Bernoulli(rates) >= k] for k = 0 ... n + 1, (n + 2,)."""
    from scipy.stats import poisson_binom

    return np.asarray(poisson_binom.sf(np.arange(-1, len(rates) + 1), rates))
