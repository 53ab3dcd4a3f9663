"""The verdict: what it rests on, and whether it is valid."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom

from amb.api.records import Evidence
from amb.evaluation.verdict import decide
from tests.evaluation.made_up import evidence, of_sources


def test_without_negatives_nothing_is_claimed() -> None:
    verdict = decide(evidence([0] * 10), [], tau=1, alpha=0.05)
    assert verdict.bound == 1.0
    assert not verdict.claim
    assert (verdict.p_value, verdict.basis, verdict.n_sources) == (1.0, "calibrated", 0)
    assert verdict.margin is None
    assert verdict.fpr_supported == 1.0


def test_verdict_rests_on_the_negatives() -> None:
    negatives = [evidence([4] * 30, seed=seed) for seed in range(5)]
    verdict = decide(evidence([0] * 29 + [5]), of_sources(negatives), tau=1, alpha=0.05)
    assert verdict.claim
    assert verdict.detection_rate == pytest.approx(29 / 30)
    assert verdict.margin == pytest.approx(29 / 30)
    assert verdict.n_negatives == 5
    assert verdict.fpr_supported == pytest.approx(1 / 6)
    assert verdict.p_values["calibrated"] == pytest.approx(1 / 6)


def test_a_negative_that_reads_like_the_suspect_takes_the_margin_away() -> None:
    negatives = [evidence([0] * 30), *(evidence([4] * 30, seed=seed) for seed in range(4))]
    verdict = decide(evidence([0] * 30), of_sources(negatives), tau=1, alpha=0.05)
    assert verdict.margin == 0
    assert verdict.p_values["calibrated"] == pytest.approx(2 / 6)


def test_relatives_count_as_one_source() -> None:
    negatives = of_sources([evidence([4] * 30, seed=seed) for seed in range(6)], "a", "a", "a", "b", "b", "c")
    verdict = decide(evidence([0] * 30), negatives, tau=1, alpha=0.05)
    assert (verdict.n_sources, verdict.n_negatives) == (3, 6)
    assert verdict.p_value == verdict.level == pytest.approx(1 / 4)
    assert verdict.claim
    own = decide(evidence([0] * 30), negatives, tau=1, alpha=0.05, source="a")
    assert (own.n_sources, own.level) == (2, pytest.approx(1 / 3)), "nobody is ranked among his relatives"


def test_an_exact_claim_is_binomial_over_all_symbols() -> None:
    verdict = decide(evidence([2] * 8), [], tau=1, alpha=0.05, null="exact", level=1e-6)
    n = verdict.n_trials * (len(verdict.curve) - 1)
    assert verdict.p_value == pytest.approx(binom.sf(n - 16 - 1, n, 0.5))
    assert (verdict.basis, verdict.level, verdict.claim) == ("exact", 1e-6, verdict.p_value <= 1e-6)
    unread = decide(evidence([4] * 8), [], tau=1, alpha=0.05, null="exact")
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
        verdict = decide(models[0], of_sources(models[1:]), tau=5, alpha=0.05)
        by_the_paper += verdict.paper_rule
        by_sources += verdict.claim
    assert by_the_paper / n_draws > 0.1, "promised: .05"
    assert binom.sf(by_sources - 1, n_draws, 1 / 10) > 1e-3, "the level that nine sources support"


def test_evidence_refuses_shapes_that_do_not_match() -> None:
    with pytest.raises(ValueError, match="two equal, non-empty"):
        Evidence(np.zeros((2, 3), int), np.zeros((3, 2), int))
