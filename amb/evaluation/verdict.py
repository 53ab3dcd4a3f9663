"""The verdict on one suspect, the same way for every method."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

from amb.api.records import Evidence, Verdict
from amb.api.types import Null
from amb.evaluation.bounds import false_detection_bound
from amb.evaluation.claims import EXACT_LEVEL, calibrated_p, exact_test, source_test, supported_fpr
from amb.evaluation.intervals import clopper_pearson
from amb.evaluation.permutation import permutation_p
from amb.evaluation.rates import binomial_p, bit_error_rate, detection_curve, detection_rate, errors, trial_fpr


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
