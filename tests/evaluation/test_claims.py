"""The valid tests under their nulls."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom

from amb.evaluation import claims, intervals


def test_the_source_test_is_valid_where_sources_have_relatives() -> None:
    generator, n_draws, n_claims = np.random.default_rng(8), 2000, 0
    for _ in range(n_draws):
        centres = generator.normal(size=7)
        rates = {str(at): list(centres[at] + 0.1 * generator.normal(size=10)) for at in range(6)}
        n_claims += claims.source_test(centres[6] + 0.1 * generator.normal(), rates).claim
    assert binom.sf(n_claims - 1, n_draws, 1 / 7) > 1e-3


def test_calibrated_p_ranks_among_negatives() -> None:
    assert claims.calibrated_p(0.5, [0.1, 0.5, 0.9]) == pytest.approx(3 / 4)
    assert claims.calibrated_p(1.0, []) == 1.0


def test_supported_fpr_and_the_rule_of_three() -> None:
    assert claims.supported_fpr(99) == pytest.approx(0.01)
    assert float(intervals.clopper_pearson_upper(0, 100, 0.05)) == pytest.approx(3 / 100, rel=0.02)
