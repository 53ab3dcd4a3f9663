"""The permutation test against a loop, and under its null."""

from __future__ import annotations

import numpy as np
import pytest

from amb.api.records import Evidence
from amb.evaluation import permutation


def test_permutation_p_sees_a_message_and_not_its_absence() -> None:
    generator = np.random.default_rng(1)
    message, noise = generator.integers(0, 2, (2, 40, 16))
    assert permutation.permutation_p(Evidence(message, message)) == pytest.approx(1e-4)
    assert permutation.permutation_p(Evidence(message, noise)) > 0.01
    same = np.repeat(message[:1], 40, axis=0)
    assert permutation.permutation_p(Evidence(same, same)) == 1.0


@pytest.mark.parametrize("at_once", [10**6, 100, 1])
def test_permutation_p_is_that_of_one_permutation_after_the_other(
    at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(permutation, "_MOST_KEPT", at_once)
    drawn = np.random.default_rng(3)
    for n_trials, n_symbols, alphabet in [(1, 4, 2), (7, 5, 2), (16, 3, 3), (40, 8, 2)]:
        evidence = Evidence(*drawn.integers(0, alphabet, (2, n_trials, n_symbols)), alphabet=alphabet)
        agreement = (evidence.observed[:, None] == evidence.expected[None]).sum(axis=2)
        generator, rows = np.random.default_rng(5), np.arange(n_trials)
        sums = [agreement[rows, generator.permutation(n_trials)].sum() for _ in range(99)]
        expected = (1 + sum(each >= np.trace(agreement) for each in sums)) / 100
        assert permutation.permutation_p(evidence, 99, seed=5) == pytest.approx(expected, abs=0)


def test_permutation_p_is_uniform_under_the_null() -> None:
    generator = np.random.default_rng(2)
    drawn = [Evidence(*generator.integers(0, 2, (2, 12, 8))) for _ in range(200)]
    small = np.mean([permutation.permutation_p(each, n_permutations=199) <= 0.1 for each in drawn])
    assert 0.03 <= small <= 0.18
