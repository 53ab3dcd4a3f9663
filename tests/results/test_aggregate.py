"""Figures over many cells, against figures computed here in another way."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.stats import beta, binomtest
from sklearn.metrics import roc_auc_score

from amb.evaluation import intervals
from amb.results import aggregate
from amb.results.records import JudgedRecord, parse_cell
from amb.testing.reporter import example_document


def cell(suspect: str, rate: float, seed: int = 0, **said: Any) -> JudgedRecord:
    """A judged cell of 20 trials; owned above 0.5."""
    template = {**example_document()["cells"][0], "suite": "toy", "owner": "toy/owner", "run": f"r{seed}"}
    figures = {"detection_rate": rate, "curve": [rate, 1.0], "n_trials": 20, "claim": rate > 0.5}
    made = parse_cell({**template, **figures, "suspect": suspect, "seed": seed, "source": suspect, **said})
    assert isinstance(made, JudgedRecord)
    return made


CELLS = [
    cell("unattacked", 1.0),
    cell("prune", 0.9, attack="prune", group="prune", seconds={"embed": 5.0, "attack": 2.0, "extract": 0.5}),
    cell("prune", 0.4, 1, attack="prune", group="prune", seconds={"embed": 7.0, "attack": 4.0}),
    cell("gone", 0.0, attack="prune", group="prune", destroyed=True),
    cell("other", 0.1, kind="negative", n_negatives=4),
    cell("twin", 0.95, kind="negative", sibling=True, source="toy/owner"),
    cell("forge on other", 0.6, kind="forged", attack="forge", source="other", n_negatives=0),
]


def names(cells: list[JudgedRecord]) -> list[str]:
    return [each.suspect for each in cells]


def test_kinds_are_told_apart() -> None:
    assert names(aggregate.positives(CELLS)) == ["unattacked", "prune", "prune", "gone"]
    assert names(aggregate.unattacked(CELLS)) == ["unattacked"]
    assert names(aggregate.attacked(CELLS)) == ["prune", "prune", "gone"]
    assert names(aggregate.usable(aggregate.attacked(CELLS))) == ["prune", "prune"]
    assert names(aggregate.negatives(CELLS)) == ["other", "twin"]
    assert names(aggregate.independent(CELLS)) == ["other"]
    assert names(aggregate.siblings(CELLS)) == ["twin"]
    assert names(aggregate.forged(CELLS)) == ["forge on other"]
    failed = parse_cell({**example_document()["cells"][2], "suite": "toy", "owner": "toy/owner", "run": "r"})
    assert aggregate.judged([failed, *CELLS]) == CELLS


def test_counts() -> None:
    assert aggregate.count_seeds(CELLS) == 2
    assert aggregate.count_suspects(CELLS) == 6
    assert aggregate.count_origins(CELLS) == 5
    assert aggregate.count_claims(CELLS) == 4
    assert aggregate.fewest_negatives(CELLS) == 1, "of the positives, not of forged keys"
    assert aggregate.fewest_negatives(aggregate.negatives(CELLS)) == 1
    assert aggregate.highest_rate(CELLS) == 1.0
    assert aggregate.highest_rate([]) is None


def test_means_leave_out_what_is_unknown() -> None:
    assert aggregate.mean([1.0, None, 4.0]) == 2.5
    assert aggregate.mean([None]) is None
    assert aggregate.average_over_seeds([None]) is None
    spread = aggregate.average_over_seeds([1.0, None, 4.0])
    assert spread is not None and spread.value == 2.5 and spread.n == 2
    attacked = aggregate.usable(aggregate.attacked(CELLS))
    assert aggregate.mean_seconds(attacked, "attack") == 3.0
    assert aggregate.mean_seconds(attacked, "extract") == 0.5
    assert aggregate.embed_seconds(attacked) == [5.0, 7.0]


def test_a_rate_takes_a_seed_as_the_cluster() -> None:
    cells = [cell(f"s{n}", rate, seed) for seed, rate in ((0, 1.0), (1, 0.5)) for n in range(10)]
    found = aggregate.average_rate(cells)
    assert found == intervals.rate_over_seeds([200, 100], [200, 200])
    assert found is not None and found.low < binomtest(300, 400).proportion_ci(method="exact").low - 0.05
    assert aggregate.average_rate(cells, tau=1) == intervals.rate_over_seeds([200, 200], [200, 200])
    assert aggregate.average_rate([]) is None
    assert aggregate.average_curve(cells) == pytest.approx([0.75, 1.0])


def test_shares_have_exact_intervals() -> None:
    share = aggregate.share_claimed(aggregate.attacked(CELLS))
    exact = binomtest(1, 3).proportion_ci(method="exact")
    assert share is not None
    assert tuple(share) == pytest.approx((1 / 3, exact.low, exact.high, 3))
    assert aggregate.share_claimed([]) is None
    suspects = aggregate.share_of_suspects_claimed(aggregate.usable(aggregate.attacked(CELLS)))
    assert suspects is not None
    limits = beta.ppf(0.025, 0.5, 1.5), beta.ppf(0.975, 1.5, 0.5)
    assert tuple(suspects) == pytest.approx((0.5, *limits, 1)), "one suspect, owned at one of its two seeds"
    assert aggregate.average_shares([]) is None


def test_a_suspect_counts_once_in_a_rank() -> None:
    marked, innocents = aggregate.usable(aggregate.positives(CELLS)), aggregate.negatives(CELLS)
    assert aggregate.suspect_rates(marked) == pytest.approx({"unattacked": 1.0, "prune": 0.65})
    found = aggregate.rank_suspects(marked, innocents)
    assert found is not None
    assert found.value == roc_auc_score([1, 1, 0, 0], [1.0, 0.65, 0.1, 0.95])
    assert aggregate.rank_suspects(marked, []) is None
    drops = aggregate.average_suspects(CELLS, lambda each: None if each.suspect == "gone" else each.rate)
    assert "gone" not in drops
    assert drops["prune"] == pytest.approx(np.mean([0.9, 0.4]))
