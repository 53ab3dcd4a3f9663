"""Documents become values: what is there is kept, what an old or a foreign document does not say is unknown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from amb.results.latest import keep_latest
from amb.results.records import JudgedRecord, parse_cell, record_of
from amb.results.result_set import parse_results
from amb.results.run_records import parse_run
from amb.testing.reporter import example_document
from tests.conftest import run_toy

WHERE = {"suite": "toy", "owner": "toy/owner", "run": "r"}


def cell(**said: Any) -> dict[str, Any]:
    return {**example_document()["cells"][0], **WHERE, **said}


def test_a_judged_cell_has_a_verdict_and_no_other_has() -> None:
    good, gone, bad = parse_results(example_document()).cells
    assert isinstance(good, JudgedRecord)
    assert (good.rate, good.claim, good.verdict.interval, good.verdict.curve) == (1.0, True, (0.9, 1.0), (1.0, 1.0))
    assert not isinstance(gone, JudgedRecord) and gone.verdict is None and gone.reason == "no"
    assert not isinstance(bad, JudgedRecord) and bad.status == "failed"
    assert (good.suite, good.owner, good.run, good.sweep) == ("toy", "toy/owner", "r", None)


def test_what_an_old_cell_does_not_say_is_unknown() -> None:
    kept = ("suite", "owner", "run", "method", "attack", "suspect", "kind", "seed", "status")
    lean = parse_cell({name: value for name, value in cell(status="failed").items() if name in kept})
    assert (lean.source, lean.group, lean.destroyed, lean.utility_drop) == (None, None, None, None)
    assert (lean.utility, lean.seconds, lean.report, lean.digests, lean.reason) == ({}, {}, {}, {}, "")
    assert lean.origin == "good"
    assert parse_cell(cell(source="", destroyed=False)).destroyed is False


@pytest.mark.parametrize(
    ("said", "family"),
    [
        ({}, ""),
        ({"attack": "prune:amount=0.4", "group": "prune"}, "prune"),
        ({"attack": "prune:amount=0.4+finetune"}, "prune+finetune"),
        ({"kind": "forged", "attack": "forge:what=decoder", "suspect": "x on y on z", "group": "other"}, "forge:what=decoder"),
    ],
)  # fmt: skip
def test_the_family_comes_from_what_is_recorded_never_from_a_name(said: dict[str, Any], family: str) -> None:
    assert parse_cell(cell(**said)).family == family


def test_a_rate_beyond_the_curve_is_that_of_its_end() -> None:
    found = parse_cell(cell(curve=[0.25, 0.5, 1.0], tau=1, detection_rate=0.5))
    assert isinstance(found, JudgedRecord)
    assert [found.rate_at(tau) for tau in (None, 0, 2, 9)] == [0.5, 0.25, 1.0, 1.0]


def test_a_lean_run_is_read_and_says_that_it_does_not_know() -> None:
    run = parse_run({"id": "r", "suite": "toy", "owner": "toy/owner"})
    assert (run.machine.system, run.machine.cpus, run.device) == ("unknown", "unknown", "unknown device")
    assert (run.seed, run.jobs, run.profile, run.compute, run.started) == (None, None, None, None, None)
    assert not run.embeddings and not run.versions and not run.methods
    assert run.place == "toy (toy/owner)"


def test_a_cell_of_a_run_that_goes_on_is_that_of_its_document(manager: Any, tmp_path: Path) -> None:
    from amb.results.collect import collect

    run = run_toy(manager, tmp_path, methods=["ipguard"])
    going = [record_of(result, run) for result in run.results]
    assert going == list(parse_results(collect(tmp_path)).cells)
    assert any(isinstance(each, JudgedRecord) for each in going)


@pytest.mark.parametrize(
    ("answers", "kept"),
    [
        (["a1+", "a2+"], ["a2+"]),
        (["a1+", "a2-"], ["a1+"]),
        (["a1-", "a2-"], ["a2-"]),
        (["a1-", "a2+", "a3-"], ["a2+"]),
        (["a1+", "b1-", "a2+", "b2+"], ["a2+", "b2+"]),
        ([], []),
    ],
)
def test_the_latest_verdict_counts_and_a_failure_only_where_there_is_none(answers: list[str], kept: list[str]) -> None:
    """An answer is its question, its number, and + where it is a verdict."""
    assert keep_latest(answers, lambda each: each[0], lambda each: each.endswith("+")) == kept
