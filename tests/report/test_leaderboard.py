"""The leaderboard: threat models, ranks that the evidence allows, and sources; against figures computed by hand."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from scipy.stats import beta

from amb.errors import BadParamsError
from amb.evaluation import intervals, separation
from amb.plugin.manager import Manager
from amb.report.formats import reporter_of
from amb.report.layouts.leaderboard import with_leaderboard
from amb.report.tables import Table, tables_of
from amb.results import schema
from amb.results.records import parse_cell
from amb.results.thieves import Thieves
from tests.report.test_formats import HOSTILE, compiled, needs_pdflatex, validator
from tests.report.test_tables import cell

REGISTRY = Manager().registry
THIEVES = Thieves(REGISTRY.describe_attack)


def judged(method: str, suspect: str, rate: float, kind: str = "positive", **more: Any) -> dict[str, Any]:
    """A cell of 8 trials; owned above 0.5."""
    made = cell("good", method=method, kind=kind)
    rates = {"detection_rate": rate, "curve": [rate] * 3, "claim": rate > 0.5, "suspect": suspect, "source": suspect}
    return {**made, **rates, "group": "g", **more}


def cells_of(method: str, positive: list[float], negative: list[float], attack: str = "prune:amount=0.4") -> list[Any]:
    found = [judged(method, f"attacked {n}", rate, attack=attack) for n, rate in enumerate(positive)]
    return found + [judged(method, f"innocent {n}", rate, "negative") for n, rate in enumerate(negative)]


def facts(run: str = "r0", suite: str = "toy") -> dict[str, Any]:
    machine = {"system": "Linux", "architecture": "x", "cpus": 2}
    return {
        "id": run, "folder": "f", "suite": suite, "owner": "toy/owner", "methods": [], "seed": 0, "alpha": 0.05, "device": "cpu",
        "started": "2026", "versions": {"amb": "1"}, "plugins": {}, "machine": machine, "git_commit": None, "embeddings": [], "links": {},
    }  # fmt: skip


def board(cells: list[Any], **options: Any) -> dict[str, Table]:
    """The tables by the first word of their titles."""
    document = with_leaderboard({"here": {"runs": [facts()], "cells": cells}}, REGISTRY, **options)
    return {table.title.partition(":")[0].partition(" ")[0]: table for table in tables_of(document)}


def column(table: Table, name: str) -> dict[Any, Any]:
    """A column by method."""
    at, by = table.headers().index(name), table.headers().index("method")
    return {row[by]: row[at] for row in table.rows}


def test_methods_are_ranked_where_no_interval_overlaps_and_share_a_rank_where_one_does() -> None:
    clear = cells_of("clear", [1.0] * 40, [0.0] * 40)
    also = cells_of("also", [1.0] * 39 + [0.0], [0.0] * 40)
    blind = cells_of("blind", [0.2] * 40, [0.2] * 40)
    table = board([*blind, *also, *clear])["Removal"]
    assert column(table, "rank") == {"clear": 1, "also": 1, "blind": 3}
    assert [row[1] for row in table.rows] == ["clear", "also", "blind"]
    areas = {name: separation.auc([1.0] * 40, [0.0] * 40) for name in ("clear",)}
    assert column(table, "AUC")["clear"]["low"] == pytest.approx(areas["clear"].low)
    assert column(table, "AUC")["blind"]["value"] == 0.5


def test_ranks_say_how_many_lie_wholly_above() -> None:
    """Against a brute force over pairs, on random evidence."""
    drawn = random.Random(0)
    spread = [[drawn.choice([0, 0, 1]) if n % 3 else 1.0 for _ in range(30)] for n in range(6)]
    cells = [each for n, rates in enumerate(spread) for each in cells_of(f"m{n}", rates, [0.0] * 20 + [0.5] * 5)]
    table = board(cells)["Removal"]
    areas, ranks = column(table, "AUC"), column(table, "rank")
    for name, area in areas.items():
        assert ranks[name] == 1 + sum(other["low"] > area["high"] for other in areas.values())
    lows = [areas[row[1]]["low"] for row in table.rows]
    assert lows == sorted(lows, reverse=True) or len(set(ranks.values())) > 1


def test_too_little_evidence_is_shown_and_not_ranked() -> None:
    enough = cells_of("enough", [1.0] * 5, [0.0] * 5)
    few = cells_of("few", [1.0] * 4, [0.0] * 5)
    alike = [
        {**each, "source": "one" if each["kind"] == "negative" else "embedded"}
        for each in cells_of("alike", [1.0] * 5, [0.0] * 9)
    ]
    table = board([*enough, *few, *alike])["Removal"]
    assert set(column(table, "rank").values()) == {None}
    (said,) = table.findings
    assert said.startswith("No method is ranked: fewer than two have evidence enough. ")
    assert "few needs 1 more usable suspect" in said
    assert "alike needs 2 more sources" in said
    table = board([*enough, *few, *alike, *cells_of("more", [1.0] * 6, [0.0] * 6)])["Removal"]
    assert column(table, "rank") == {"enough": 1, "more": 1, "few": None, "alike": None}
    wanting, shared = table.findings
    assert wanting == "Not ranked for want of evidence: few needs 1 more usable suspect; alike needs 2 more sources."
    assert shared == "All ranked methods share one rank: their intervals overlap."


def test_figures_are_those_of_the_suspects() -> None:
    cells = cells_of("m", [1.0, 1.0, 0.0], [0.0, 0.75])
    cells += [{**each, "seed": 1, "detection_rate": 0.0, "claim": False} for each in cells[:1]]
    cells += [judged("m", "gone", 1.0, attack="prune:amount=0.9", destroyed=True)]
    cells += [judged("m", "broken", 0.0, attack="prune:amount=0.8", status="failed", reason="oh")]
    table = board(cells)["Removal"]
    assert (column(table, "usable")["m"], column(table, "destroyed")["m"], column(table, "no verdict")["m"]) == (
        3,
        1,
        1,
    )
    claimed = column(table, "claimed, of usable")["m"]
    assert claimed["value"] == pytest.approx((0.5 + 1 + 0) / 3)
    assert claimed["low"] == pytest.approx(beta.ppf(0.025, 1.5, 3 - 1.5 + 1))
    assert claimed["high"] == pytest.approx(beta.ppf(0.975, 1.5 + 1, 3 - 1.5))
    assert column(table, "AUC")["m"]["value"] == pytest.approx((1 + 2 + 0.5) / 6)
    assert column(table, "highest innocent R")["m"] == 0.75
    assert column(table, "false claims")["m"]["value"] == 0.5
    assert column(table, "lowest FPR")["m"] == pytest.approx(1 / 3)
    assert column(table, "seeds")["m"] == 2
    assert any("broken: failed: oh" in note for note in table.notes)


@pytest.mark.parametrize(
    ("attack", "threat"),
    [
        ("none", "unattacked"),
        ("prune:amount=0.4+finetune", "removal"),
        ("prune:amount=0.4+overwrite", "adaptive"),
        ("nothing-of-ours:x=1", "unknown"),
        ("<script>", "unknown"),
    ],
)
def test_threat_is_the_most_that_any_attack_of_the_chain_knows(attack: str, threat: str) -> None:
    assert THIEVES.threat(parse_cell(judged("m", "s", 1.0, attack=attack))) == threat


def test_every_attack_that_knows_the_key_counts_as_key_leaked() -> None:
    for name, cls in REGISTRY.attacks.classes.items():
        try:
            attack = cls()
        except ValueError:  # it has a parameter without a default
            continue
        expected = {"model": "removal", "method": "adaptive", "key": "key leaked"}[attack.knows]
        if name != "none":
            assert THIEVES.threat(parse_cell(judged("m", "s", 1.0, attack=attack.canonical()))) == expected


def test_forgery_ranks_the_method_first_that_false_claims_least() -> None:
    forged = [judged("weak", f"forge on {n}", 1.0, "forged", attack="forge", source=f"s{n}") for n in range(20)]
    forged += [judged("strong", f"forge on {n}", 0.0, "forged", attack="forge", source=f"s{n}") for n in range(20)]
    table = board(forged)["Forgery"]
    assert column(table, "rank") == {"strong": 1, "weak": 2}
    assert column(table, "false claims")["weak"]["low"] == pytest.approx(intervals.clopper_pearson(20, 20).low)


def test_a_method_that_was_spared_suspects_is_named() -> None:
    cells = cells_of("m", [1.0] * 6, [0.0] * 6) + cells_of("spared", [1.0] * 5, [0.0] * 6)
    assert "spared has no verdict on 1 of 6 suspects that others were judged on." in board(cells)["Removal"].notes


def test_sources_merge_and_a_run_in_two_of_them_counts_once() -> None:
    one = {"runs": [facts("r0")], "cells": cells_of("m", [1.0] * 5, [0.0] * 5)}
    later = {
        "runs": [facts("r1")],
        "cells": [{**each, "run": "r1", "detection_rate": 0.25} for each in one["cells"][:1]],
    }
    merged = with_leaderboard({"a": one, "b.zip": one, "c": later}, REGISTRY)
    assert len(merged["cells"]) == 10
    assert merged["cells"][0]["detection_rate"] == 0.25
    rows = tables_of(merged)[-1].rows
    assert [(row[0], row[1], row[6]) for row in rows] == [("r0", "a, b.zip", 9), ("r1", "c", 1)]


def test_suites_are_apart_and_can_be_chosen() -> None:
    cells = cells_of("m", [1.0] * 5, [0.0] * 5)
    both = {"runs": [facts(), facts("r1", "other")], "cells": [*cells, *({**each, "suite": "other"} for each in cells)]}
    assert sum("Removal" in table.title for table in tables_of(with_leaderboard({"a": both}, REGISTRY))) == 2
    chosen = with_leaderboard({"a": both}, REGISTRY, "other")
    assert {each["suite"] for each in chosen["cells"]} == {"other"}
    with pytest.raises(BadParamsError, match="There is no suite 'othr' in these results. Did you mean other?"):
        with_leaderboard({"a": both}, REGISTRY, "othr")


def hostile() -> dict[str, Any]:
    cells = [each for name in HOSTILE for each in cells_of(name, [1.0] * 5, [0.0] * 5, attack=name or "none")]
    return with_leaderboard({name: {"runs": [facts()], "cells": cells} for name in HOSTILE[:3]}, REGISTRY)


@pytest.mark.parametrize("format_", sorted(REGISTRY.reporters))
def test_it_renders_in_every_format(format_: str) -> None:
    text = reporter_of(format_, REGISTRY).render(hostile())
    assert "<script>alert" not in text or format_ in ("json", "csv", "table", "wide")
    if format_ == "json":
        assert json.loads(text)["tables"]


def test_the_page_is_called_what_it_is() -> None:
    text = reporter_of("html", REGISTRY).render(hostile())
    assert "<title>Ownership verification: leaderboard</title>" in text
    assert "<h1>Ownership verification: leaderboard</h1>" in text


def test_json_fits_the_published_schema() -> None:
    document = hostile()
    named = [{**each, "digests": {}} for each in document["cells"][:3]]
    validator("report").validate(json.loads(json.dumps({**document, "cells": named})))
    assert Path(schema.__file__).with_name("report.json").exists()


@needs_pdflatex
def test_latex_compiles(tmp_path: Path) -> None:
    code, log = compiled(reporter_of("latex", REGISTRY).render(hostile()), tmp_path)
    assert code == 0, log[-2000:]
    assert "Float too large" not in log
