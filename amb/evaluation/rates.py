"""How much of a message was read, and how much chance alone gives. Pure functions.

Equation numbers in this folder are those of the ActiveMark paper (arXiv 2510.04966). A *trial* is one trigger; its *symbols* are
the bits or labels read on it; *rho* is how many of them are wrong; a trial is *detected* where rho <= tau.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from amb.api.records import Evidence

Rule = Literal["<=", "<"]
"""`<=`: detected with at most tau errors (eq. 4, 5). `<`: with fewer than tau, as the paper writes in eq. 6."""
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


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
    return float(sum_poisson_binomial(np.asarray(rates, dtype=np.float64))[n_detected])


def sum_poisson_binomial(rates: Floats) -> Floats:
    """P[sum of Bernoulli(rates) >= k] for k = 0 ... n + 1, (n + 2,)."""
    from scipy.stats import poisson_binom

    return np.asarray(poisson_binom.sf(np.arange(-1, len(rates) + 1), rates))
