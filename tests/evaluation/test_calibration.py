"""Thresholds from negatives, what a claim needs, and the validity gate: against brute force and closed forms."""

from __future__ import annotations

from math import comb

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amb.evaluation.calibration import held_out, power, rate_threshold, tau_for_negatives
from amb.evaluation.claims import calibrated_p
from amb.evaluation.primary_utility import primary_utility, utility_drop
from amb.report.layouts.negatives import negatives
from amb.report.layouts.robustness import robustness
from amb.results.records import CellRecord, parse_cell
from amb.results.result_set import ResultSet
from amb.testing.reporter import example_document

RATES = st.lists(st.integers(0, 20).map(lambda k: k / 20), min_size=1, max_size=60)


@given(RATES, st.integers(0, 20).map(lambda k: k / 20), st.floats(0.01, 0.9))
def test_a_rate_above_the_threshold_has_a_small_p_value_and_no_other(
    rates: list[float], rate: float, fpr: float
) -> None:
    threshold = rate_threshold(rates, fpr)
    claimed = threshold is not None and rate > threshold
    assert claimed == (calibrated_p(rate, rates) <= fpr + 1e-9)


def test_nineteen_negatives_support_one_in_twenty_and_eighteen_do_not() -> None:
    assert rate_threshold([0.1 * (k % 7) for k in range(19)], 0.05) == pytest.approx(0.6)
    assert rate_threshold([0.1] * 18, 0.05) is None


def test_a_source_is_judged_by_the_others_alone() -> None:
    quiet = {name: [0.0] * 10 for name in "abc"}
    loud = held_out({**quiet, "loud": [0.5] * 10}, 0.05)
    assert loud["loud"] == (10, 10), "its own models would have raised the threshold"
    assert all(loud[name] == (0, 10) for name in quiet)


def test_too_few_other_negatives_support_no_threshold() -> None:
    assert held_out({"a": [0.0] * 50, "b": [0.0]}, 0.05) == {}


def test_calibrated_tau_is_the_largest_that_innocents_do_not_pass() -> None:
    curves = [[0.0, 0.0, 0.25, 1.0]] * 3 + [[0.0, 0.0, 0.0, 1.0]]
    assert tau_for_negatives(curves, 10_000, 0.001) == 1
    assert tau_for_negatives([[0.5, 1.0]], 100, 0.001) is None


def tail(n: int, p: float, k: int) -> float:
    return sum(comb(n, i) * p**i * (1 - p) ** (n - i) for i in range(k, n + 1))


@pytest.mark.parametrize(
    ("fpr", "confidence", "innocent", "marked"),
    [(1e-3, 0.95, 0.1, 0.9), (0.05, 0.9, 0.4, 0.6), (1e-6, 0.99, 0.01, 0.8)],
)
def test_fewest_triggers_by_brute_force(fpr: float, confidence: float, innocent: float, marked: float) -> None:
    def enough(n: int) -> int | None:
        good = [k for k in range(1, n + 1) if tail(n, innocent, k) <= fpr and tail(n, marked, k) >= confidence]
        return good[0] if good else None

    n = next(n for n in range(1, 200) if enough(n))
    found = power(fpr, confidence, innocent, marked)
    assert (found.n_trials, found.n_detected) == (n, enough(n))


@pytest.mark.parametrize(("fpr", "confidence"), [(1e-3, 0.95), (0.01, 0.99), (0.5, 0.5)])
def test_negatives_that_bound_a_rate(fpr: float, confidence: float) -> None:
    n = power(fpr, confidence, 0.1, 0.9).n_negatives
    assert (1 - fpr) ** n <= 1 - confidence < (1 - fpr) ** (n - 1)


def test_the_rule_of_three_and_the_rank() -> None:
    needs = power(1e-3, 0.95, 0.1, 0.9)
    assert needs.n_negatives == pytest.approx(3000, rel=0.005)
    assert calibrated_p(1.0, [0.0] * needs.n_ranked) <= 1e-3 < calibrated_p(1.0, [0.0] * (needs.n_ranked - 1))


def test_rates_that_no_number_of_triggers_tells_apart() -> None:
    assert power(1e-3, 0.95, 0.9, 0.9)[2:] == (None, None)


# What an attack may cost


def test_worth_is_measured_on_the_task_that_both_models_have() -> None:
    before = {"probe": 0.9, "head_accuracy": 0.96, "head_miou": 0.94}
    assert utility_drop(before, {"probe": 0.9, "head_accuracy": 0.48}) == pytest.approx(0.5)
    assert utility_drop(before, {"probe": 0.9, "head_miou": 0.94}) == 0
    assert utility_drop({"probe": 0.5}, {"probe": 0.6, "head_accuracy": 0.9}) == pytest.approx(-0.2)
    assert utility_drop({"probe": 0.5}, {"knn": 0.6}) is None
    assert primary_utility({"knn": 0.5}) == ("kNN", 0.5)


# The layouts


def cell(suspect: str, rate: float, **more: object) -> CellRecord:
    said = {
        **example_document()["cells"][0], "suite": "toy", "owner": "toy/owner", "run": "r", "suspect": suspect, "kind": "negative",
        "source": suspect, "group": "other-seed", "detection_rate": rate, "n_trials": 100, "tau": 1, "curve": [rate, rate],
        "claim": rate > 0.5, "margin": rate - 0.4, "utility": {"probe": 0.9}, "utility_drop": 0.0, "destroyed": False, **more,
    }  # fmt: skip
    return parse_cell(said)


def results(cells: list[CellRecord]) -> ResultSet:
    return ResultSet([], cells, "here")


def rows(table: object) -> list[dict[str, object]]:
    return [dict(zip(table.headers(), row, strict=True)) for row in table.rows]


def test_a_destroyed_suspect_counts_neither_for_nor_against() -> None:
    attacked = {"kind": "positive", "group": "prune", "attack": "prune"}
    cells = [
        cell("prune20", 1.0, **attacked),
        cell("prune40", 0.6, **attacked),
        cell("prune80", 0.0, destroyed=True, utility_drop=0.9, **attacked),
        cell("unattacked", 1.0, kind="positive", group="", attack="none"),
    ]
    families, every = robustness(results(cells))
    by_family = {row["family"]: row for row in rows(families)}
    assert by_family["prune"]["destroyed"] == 1
    assert by_family["prune"]["claimed, of usable"]["value"] == 1
    assert by_family["prune"]["claimed, of all"]["value"] == pytest.approx(2 / 3)
    assert by_family["prune"]["R(τ) of usable"]["value"] == pytest.approx(0.8)
    assert by_family["all attacks"]["cells"] == 3, "the control is no attack"
    assert [row["destroyed"] for row in rows(every)] == ["0 of 1", "0 of 1", "1 of 1", "0 of 1"]


def test_innocent_models_are_counted_by_class_with_sources_as_clusters() -> None:
    cells = [cell(f"a{k}", 0.0, source="a") for k in range(10)] + [cell(f"b{k}", 1.0, source="b") for k in range(10)]
    classes, thresholds, taus = negatives(results(cells))
    (row,) = rows(classes)
    assert (row["models"], row["sources"], row["highest R"]) == (20, 2, 1.0)
    assert row["false claims"]["value"] == 0.5
    assert row["false claims"]["high"] - row["false claims"]["low"] > 0.9, "two sources say little"
    by_fpr = {row["wanted FPR"]: row for row in rows(thresholds)}
    assert by_fpr[0.1]["held-out FPR"]["value"] == 0.5, "all of b exceed what a gives, none of a what b gives"
    assert by_fpr[0.05]["held-out FPR"] is None, "ten others support 1/11 at the least"
    assert rows(taus)[0]["calibrated τ"] is None


def test_a_source_counts_as_one_model() -> None:
    once, often = ([cell(f"a{k}", 1.0, source="a") for k in range(n)] for n in (1, 50))
    rows_of = [rows(negatives(results(cells))[0])[0] for cells in (once, often)]
    assert rows_of[0]["false claims"] == rows_of[1]["false claims"]
    assert rows_of[0]["R(τ)"] == rows_of[1]["R(τ)"]


def test_thresholds_are_judged_on_other_sources() -> None:
    cells = [cell(f"{name}{k}", 0.0, source=name) for name in "abcd" for k in range(10)]
    cells += [cell(f"e{k}", 0.9, source="e") for k in range(2)] + [cell("own", 1.0, kind="positive", attack="prune")]
    _, thresholds, _ = negatives(results(cells))
    at_a_twentieth = next(row for row in rows(thresholds) if row["wanted FPR"] == 0.05)
    assert at_a_twentieth["held-out FPR"]["value"] == pytest.approx(1 / 5), "one source of five, two models or not"
    assert at_a_twentieth["TPR of usable"]["value"] == 1.0
