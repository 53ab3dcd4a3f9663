"""The choice of a method, and what a thief keeps: against counts by hand; and the page that is made of the choice."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import choice as page
import pytest

import amb
from amb.plugin.manager import Manager
from amb.report.figures import draw
from amb.report.formats import reporter_of
from amb.report.layouts import with_tables
from amb.report.layouts.leaderboard import with_leaderboard
from amb.report.tables import Table, tables_of
from amb.results.result_set import parse_results
from tests.report.test_leaderboard import facts, judged
from tests.report.test_page import stored

REGISTRY = Manager().registry
PRUNES, FILTERS, OVERWRITES = "prune:amount=0.4", "input-blur", "overwrite"


def embedding(method: str, access: str) -> dict[str, Any]:
    utility = {"utility_before": {"knn": 0.9}, "utility_after": {"knn": 0.88}}
    return {"method": method, "access": access, "seconds": 1.0, "report": {}, "similarity": {}, **utility}


def document() -> dict[str, Any]:
    """`strong` reads weights and loses to nobody; `cheap` reads labels, holds against pruning only, and claims an innocent one."""
    runs = [{**facts(), "embeddings": [embedding("strong", "weights"), embedding("cheap", "labels")]}]
    cells = [
        judged("strong", "unattacked", 1.0, attack="none", group="", utility_drop=0.0),
        judged("cheap", "unattacked", 1.0, attack="none", group="", utility_drop=0.0),
        *(judged("strong", name, 1.0, attack=name, utility_drop=0.1) for name in (PRUNES, FILTERS, OVERWRITES)),
        judged("cheap", PRUNES, 1.0, attack=PRUNES, utility_drop=0.1),
        judged("cheap", FILTERS, 0.0, attack=FILTERS, utility_drop=0.02),
        judged("cheap", OVERWRITES, 0.0, attack=OVERWRITES, utility_drop=0.01),
        judged("cheap", "prune:amount=0.9", 0.0, attack="prune:amount=0.9", destroyed=True, utility_drop=0.5),
        judged("cheap", "forge on x", 1.0, "forged", attack="forge", source="x"),
        judged("strong", "forge on x", 0.0, "forged", attack="forge", source="x"),
        *(judged(method, "x", float(method == "cheap"), "negative") for method in ("strong", "cheap")),
        *(judged(method, "y", 0.0, "negative") for method in ("strong", "cheap")),
    ]
    return {"schema": 2, "runs": runs, "cells": cells}


def tables(layout: str) -> list[Table]:
    return tables_of(with_tables(document(), layout, describe=REGISTRY.describe_attack))


def test_methods_stand_where_they_have_a_claim() -> None:
    chosen, _ = tables("choice")
    assert chosen.headers() == ["thief", "labels", "weights"]
    assert chosen.rows == [
        ["deploys it as it is", "cheap 1/1 (1/2 false)", "strong 1/1"],
        ["prunes it", "cheap 1/1 (1/2 false)", "strong 1/1"],
        ["filters inputs or answers", None, "strong 1/1"],
        ["knows the method", None, "strong 1/1"],
        ["forges a key", None, "strong 0/1"],
    ]
    whom = "filters inputs or answers; who knows the method; who forges a key"
    assert chosen.findings == [f"With no more than labels, no method here holds against a thief who {whom}."]


def test_evidence_stands_behind_each_of_them() -> None:
    _, evidence = tables("choice")
    rows = {(row[0], row[1]): dict(zip(evidence.headers(), row, strict=True)) for row in evidence.rows}
    prunes = rows["prunes it", "cheap"]
    assert prunes["claimed, of usable"]["value"] == 1.0
    assert (prunes["cells"], prunes["seeds"], prunes["destroyed"]) == (2, 1, "1 of 2")
    assert (prunes["false claims"], prunes["access"]) == ("1 of 2", "labels")
    assert prunes["utility fall"] == pytest.approx(0.02)
    assert (prunes["embed s"], prunes["extract s"]) == (10.0, 0.08)
    assert rows["forges a key", "cheap"]["claimed, of usable"]["value"] == 1.0
    assert rows["forges a key", "strong"]["claimed, of usable"]["value"] == 0.0
    assert len(rows) == 10


def test_without_plugins_the_thief_is_unknown_and_says_so() -> None:
    chosen = tables_of(with_tables(document(), "choice"))[0]
    assert [row[0] for row in chosen.rows] == [
        "deploys it as it is",
        "forges a key",
        "does what no plugin here provides",
    ]


def test_innocent_models_alone_give_nothing_to_choose() -> None:
    found = document()
    found["cells"] = [each for each in found["cells"] if each["kind"] == "negative"]
    assert with_tables(found, "choice")["tables"] == []


def test_robustness_says_what_the_uninformed_thief_keeps() -> None:
    table = tables("robustness")[-1]
    assert table.title.startswith("Without knowing the method")
    strong, cheap = table.rows
    assert strong == ["strong", None, None, None, None, None, "0 of 2"]
    assert cheap[:2] == ["cheap", FILTERS], "overwriting keeps more, but knows the method"
    assert cheap[2]["value"] == pytest.approx(0.98)
    assert (cheap[3], cheap[-1]) == ("0 of 1", "1 of 3")
    assert table.findings == [
        "strong: none of 2 attacks by a thief who has the model alone removed the claim and left the model usable.",
        "cheap: input-blur removes the claim and keeps 0.980 of the utility.",
    ]


def test_a_method_that_does_not_claim_its_own_model_has_nothing_to_lose() -> None:
    found = document()
    found["cells"][1] |= {"claim": False, "detection_rate": 0.0}
    made = tables_of(with_tables(found, "robustness", describe=REGISTRY.describe_attack))[-1]
    assert made.findings[1] == "cheap: its own model is not claimed, so there is nothing to remove."


def test_the_figure_has_a_line_where_the_thief_stands() -> None:
    figure = draw("pareto", parse_results(document(), REGISTRY.describe_attack))
    upright = [line for axes in figure.axes for line in axes.get_lines() if line.get_linestyle() == ":"]
    assert [list(line.get_xdata()) for line in upright] == [pytest.approx([0.98, 0.98])]
    unknown = draw("pareto", parse_results(document()))
    assert not [line for axes in unknown.axes for line in axes.get_lines() if line.get_linestyle() == ":"]


def test_the_leaderboard_says_what_the_thief_of_each_table_keeps() -> None:
    board = tables_of(with_leaderboard({"here": document()}, REGISTRY))
    kept = {table.title.partition(":")[0]: table for table in board if "thief keeps" in table.headers()}
    at = {name: table.headers().index("thief keeps") for name, table in kept.items()}
    rows = {name: {row[1]: row[at[name]] for row in table.rows} for name, table in kept.items()}
    assert rows["Removal"] == {"strong": None, "cheap": pytest.approx(0.98)}
    assert rows["Adaptive"] == {"strong": None, "cheap": pytest.approx(0.99)}


def test_the_html_report_has_the_choice_and_a_sentence_for_each_thief() -> None:
    text = reporter_of("html", REGISTRY).render(document())
    assert 'id="choice"' in text
    assert "A thief who has the model alone removes its claim by input-blur, and keeps 0.98 of the utility." in text
    assert "No thief who has the model alone removed its claim and kept the model usable." in text


def test_the_page_is_made_of_results(tmp_path: Path) -> None:
    stored(document(), tmp_path)
    page.main(tmp_path, page=tmp_path / "choice.md")
    text = (tmp_path / "choice.md").read_text(encoding="utf-8")
    assert text.startswith(page.INTRO) and text.endswith(page.OUTRO)
    assert "15 cells judged, 0 skipped and 0 failed; seeds 0; amb 1." in text
    assert "| prunes it | cheap 1/1 (1/2 false) | strong 1/1 |" in text
    table = amb.load_results(tmp_path).table("choice")[0]
    assert all(f"| {row[0]} |" in text for row in table.rows)


def test_the_page_that_is_kept_was_made_by_this_script() -> None:
    text = page.PAGE.read_text(encoding="utf-8")
    assert text.startswith(page.INTRO) and text.endswith(page.OUTRO)
    assert re.search(r"\d cells? judged, \d+ skipped and \d+ failed", text)
    assert "**Which method for which thief, " in text


def test_the_threat_model_names_thieves_as_attacks_declare_them() -> None:
    text = (page.PAGE.parent / "threats.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\|[^|]*\| ([^|`]*) \|((?: `[a-z0-9-]+`,?)+) \|$", text, re.MULTILINE)
    said = {name: thief for thief, names in rows for name in re.findall(r"`([a-z0-9-]+)`", names)}
    attacks = {name: cls.thief for name, cls in REGISTRY.attacks.classes.items() if cls.thief != "forges a key"}
    assert said == attacks
