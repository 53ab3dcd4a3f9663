"""Layouts and formats on small documents: the figures are right, and what a name holds is shown, never obeyed."""

from __future__ import annotations

import csv
import io
import json
from html.parser import HTMLParser
from typing import Any

import pandas as pd
import pytest

from amb.errors import BadParamsError, UnknownNameError, printable
from amb.evaluation import intervals
from amb.plugin.manager import Manager
from amb.report.formats import reporter_of
from amb.report.layouts import LAYOUTS, with_tables
from amb.report.tables import Column, Table, show, tables_of
from amb.testing.reporter import example_document

REGISTRY = Manager().registry
NASTY = ["<script>alert(1)</script>", "a|b & c_d {e} $f% #g ~h ^i \\j", '“quoted”, "twice"\nand broken', "é漢字" * 120]
CURVES = {"good": [0.5, 0.75, 1.0], "weak": [0.0, 0.25, 0.5], "innocent": [0.0, 0.0, 0.25]}


def cell(
    suspect: str, seed: int = 0, method: str = "m", kind: str = "positive", sibling: bool = False
) -> dict[str, Any]:
    """A judged cell of 8 trials with 2 symbols each, detected at tau = 1."""
    curve = CURVES[suspect.partition(" ")[0]]
    template = example_document()["cells"][0]
    return {
        **template, "suite": "toy", "owner": "toy/owner", "sweep": None, "run": f"r{seed}", "suspect": suspect,
        "method": method, "kind": kind, "sibling": sibling, "seed": seed, "curve": curve, "tau": 1, "n_trials": 8,
        "detection_rate": curve[1], "interval": list(intervals.clopper_pearson(round(8 * curve[1]), 8)),
        "seconds": {"embed": 10.0 + seed, "attack": 1.0, "extract": 0.08}, "attack": "prune" if suspect == "weak" else "none",
    }  # fmt: skip


def document() -> dict[str, Any]:
    cells = [cell(name, seed) for seed in (0, 1) for name in ("good", "weak")]
    cells += [cell("innocent", seed, kind="negative") for seed in (0, 1)]
    cells += [cell("innocent twin", seed, kind="negative", sibling=True) for seed in (0, 1)]
    cells[0]["suspect"] = cells[2]["suspect"] = "unattacked"
    machine = {"system": "Linux", "architecture": "x", "cpus": 2}
    profile = {"top": [1.0, 9.0], "median": [0.1, 0.2], "massive_share": [0.0, 1.0], "n_images": 100, "block": 1}
    run = {
        "id": "r0", "suite": "toy", "owner": "toy/owner", "machine": machine, "device": "cpu", "profile": {**profile, "block_choice": "x"},
        "embeddings": [{"method": "m", "utility_before": {"knn": 0.9}, "utility_after": {"knn": 0.88}}],
    }  # fmt: skip
    return {"schema": 2, "runs": [run], "cells": cells}


def table(layout: str, **options: Any) -> Table:
    return tables_of(with_tables(document(), layout, **options))[0]


def column(made: Table, name: str) -> list[Any]:
    at = made.headers().index(name)
    return [row[at] for row in made.rows]


def test_summary_pools_trials_over_seeds() -> None:
    made = table("summary")
    rates = dict(zip(column(made, "suspect"), column(made, "R(τ)"), strict=True))
    low, high = intervals.clopper_pearson(4, 16)
    assert rates["weak"]["value"] == 0.25
    assert (rates["weak"]["low"], rates["weak"]["high"]) == pytest.approx((low, high))
    assert column(made, "seeds") == [2, 2, 2, 2]
    assert column(made, "kind") == ["positive", "positive", "negative", "sibling"]


def test_summary_groups_by_any_column_that_there_is() -> None:
    made = table("summary", by=["kind"])
    assert column(made, "kind") == ["positive", "negative", "sibling"]
    assert column(made, "R(τ)")[0]["value"] == pytest.approx((0.75 + 0.25) / 2)
    with pytest.raises(BadParamsError, match="There is no column 'methd' to group by. Did you mean method?"):
        table("summary", by=["methd"])
    with pytest.raises(BadParamsError, match="--group-by goes with --layout summary"):
        table("suspects", by=["kind"])
    with pytest.raises(UnknownNameError, match="No layout is called 'tabel2'"):
        table("tabel2")


def test_seeds_are_the_clusters_whatever_is_grouped() -> None:
    """Twenty suspects a seed, all found at one seed and half of each trial at the other: the spread is of two seeds."""
    found = {**document(), "cells": []}
    for seed, rate in ((0, 1.0), (1, 0.5)):
        found["cells"] += [{**cell("good", seed), "suspect": f"s{n}", "detection_rate": rate} for n in range(20)]
    (made,) = tables_of(with_tables(found, "summary", by=["kind"]))
    pooled = intervals.rate_over_seeds([160, 80], [160, 160])
    assert column(made, "R(τ)")[0]["low"] == pytest.approx(pooled.low)


@pytest.mark.parametrize(
    "layout", ["summary", "paper-table1", "paper-table2", "paper-table3", "paper-figure3", "suspects"]
)
def test_models_are_never_averaged_with_each_other(layout: str) -> None:
    both = document()
    both["cells"] += [
        {**each, "owner": "toy/other", "detection_rate": 0.0, "curve": [0.0] * 3} for each in both["cells"]
    ]
    both["runs"] += [{**both["runs"][0], "owner": "toy/other"}]
    alone = tables_of(with_tables(document(), layout))[0]
    first = tables_of(with_tables(both, layout))[0]
    if layout == "summary":
        assert column(first, "owner").count("toy/owner") == len(alone.rows)
        assert column(first, "R(τ)")[: len(alone.rows)] == column(alone, "R(τ)")
    else:
        assert first.rows == alone.rows
        assert len({each.title for each in tables_of(with_tables(both, layout))}) == 2


def test_what_has_no_verdict_is_named_with_its_seeds_and_not_counted() -> None:
    lame = document()
    lame["cells"][3] = {**lame["cells"][3], "status": "failed", "reason": "oh", "detection_rate": None}
    (made,) = tables_of(with_tables(lame, "summary"))
    assert column(made, "seeds")[1] == 1
    assert "m on weak: failed: oh (seed 1)" in made.notes
    (ranked,) = tables_of(with_tables(lame, "suspects"))
    assert "Left out: m on weak: failed: oh (seed 1)" in ranked.notes


def test_table1_reads_the_curve_and_counts_wrong_symbols() -> None:
    made = table("paper-table1")
    assert column(made, "R(0)")[0]["value"] == 0.5
    assert column(made, "R(4)")[0]["value"] == 1.0
    assert column(made, "avg. error")[0]["value"] == 0.0
    assert column(made, "weak: R(τ)")[0]["value"] == 0.25


def test_table2_has_a_column_for_each_method_and_a_row_for_each_suspect() -> None:
    mixed = document()
    mixed["cells"] += [{**cell("good"), "suspect": "unattacked", "method": "n"}]
    mixed["cells"] += [
        {**cell("weak"), "method": "n", "status": "skipped", "reason": "no head", "detection_rate": None}
    ]
    made = tables_of(with_tables(mixed, "paper-table2"))[0]
    assert made.headers()[2:] == ["m", "n"]
    assert column(made, "model type") == ["positive", "positive", "negative", "sibling"]
    assert column(made, "n")[1] == "skipped"
    assert column(made, "n")[2] is None
    assert "n on weak: skipped: no head (seed 0)" in made.notes


def test_table3_averages_seconds_over_seeds() -> None:
    made = table("paper-table3")
    embed = column(made, "embed s")[0]
    assert embed["value"] == 10.5
    assert embed["high"] == pytest.approx(intervals.mean_over_seeds([10.0, 11.0]).high)
    assert column(made, "extract ms a trial")[0]["value"] == pytest.approx(10.0)
    assert column(made, "utility fall")[0] == pytest.approx(0.02)


def test_figures_are_the_curve_and_the_profile() -> None:
    curves = table("paper-figure3")
    assert curves.headers()[2:] == ["τ=0", "τ=1", "τ=2"]
    assert [entry["value"] for entry in curves.rows[0][2:]] == [0.5, 0.75, 1.0]
    assert column(table("paper-figure2"), "top 5 |a|") == [1.0, 9.0]


def test_suspects_count_once_whatever_the_number_of_seeds() -> None:
    made = table("suspects")
    assert column(made, "negatives") == ["independent", "all"]
    assert column(made, "n pos.") == [2, 2]
    assert column(made, "n neg.") == [1, 2]
    assert column(made, "AUC")[0]["value"] == 1.0
    assert "TPR at FPR 0.05" not in made.headers()
    assert any("19 for 0.05" in note for note in made.notes)
    assert any("they come from 2 sources," in note for note in made.notes)
    assert column(made, "lowest FPR") == [1 / 2, 1 / 3]
    assert column(made, "TPR there")[1]["value"] == 1.0


def test_cells_hold_every_figure_for_pandas() -> None:
    text = reporter_of("csv", REGISTRY).render(with_tables(document(), "cells"))
    frame = pd.read_csv(io.StringIO(text))
    assert len(frame) == 8
    assert frame["detection_rate"].tolist()[:2] == [0.75, 0.25]
    assert frame.loc[0, "seconds_embed"] == 10.0
    assert frame.loc[0, "p_heuristic"] == 1e-9, "the example's null is not exact"
    assert frame["p_binomial"].isna().all()
    exact = {**document(), "cells": [{**each, "basis": "exact"} for each in document()["cells"]]}
    frame = pd.read_csv(io.StringIO(reporter_of("csv", REGISTRY).render(with_tables(exact, "cells"))))
    assert frame.loc[0, "p_binomial"] == 1e-9
    assert frame["p_heuristic"].isna().all()


def nasty_document(name: str) -> dict[str, Any]:
    made = Table(name, [Column("suspect", text=True), Column(name)], [[name, 0.5], ["plain", None]], [name])
    return {**example_document(), "tables": [made.to_json()]}


@pytest.mark.parametrize("name", NASTY)
def test_csv_gives_names_back_as_they_were(name: str) -> None:
    rows = list(csv.reader(io.StringIO(reporter_of("csv", REGISTRY).render(nasty_document(name)))))
    assert rows == [["suspect", name], [name, "0.5"], ["plain", ""]]


@pytest.mark.parametrize("name", NASTY)
def test_html_shows_names_and_obeys_none(name: str) -> None:
    class Seen(HTMLParser):
        def __init__(self) -> None:
            super().__init__()
            self.tags: list[str] = []
            self.text = ""

        def handle_starttag(self, tag: str, attrs: Any) -> None:
            self.tags.append(tag)

        def handle_data(self, data: str) -> None:
            self.text += data

    seen = Seen()
    seen.feed(reporter_of("html", REGISTRY).render(nasty_document(name)))
    assert seen.tags.count("script") == 1  # the page's own
    assert printable(name) in seen.text


@pytest.mark.parametrize("name", NASTY)
def test_markdown_keeps_a_row_on_its_line(name: str) -> None:
    lines = reporter_of("markdown", REGISTRY).render(nasty_document(name)).splitlines()
    rows = [line for line in lines if line.startswith("| ")]
    assert len(rows) == 4
    assert all(line.replace("\\|", "").count("|") == 3 for line in rows)
    assert not any("<script" in line for line in lines)


@pytest.mark.parametrize("name", NASTY[:3])
def test_latex_escapes_what_latex_obeys(name: str) -> None:
    text = reporter_of("latex", REGISTRY).render(nasty_document(name))
    body = text[text.index("\\midrule") : text.index("\\bottomrule")]
    for mark in "&%$#_{}":
        free = body.replace(f"\\{mark}", "").replace("\\textbackslash{}", "").replace("\\textasciitilde{}", "")
        free = free.replace("\\textasciicircum{}", "").replace("\\textless{}", "").replace("\\textgreater{}", "")
        free = free.replace("\\textbar{}", "")
        assert free.count(mark) == (2 if mark == "&" else 0), (mark, free)


@pytest.mark.parametrize("format_", sorted(REGISTRY.reporters))
@pytest.mark.parametrize("layout", sorted(LAYOUTS))
def test_every_layout_renders_in_every_format(layout: str, format_: str) -> None:
    text = reporter_of(format_, REGISTRY).render(with_tables(document(), layout))
    assert "nan" not in text.lower()
    if format_ == "json":
        assert json.loads(text)["tables"]


def test_numbers_are_shown_as_people_read_them() -> None:
    assert show(0.12345) == "0.123"
    assert show(0.00001) == "1e-05"
    assert show(0.0) == "0.000"
    assert show(None) == "–"
    assert show(7) == "7"
    assert show("a\x1b[2Jb\nc") == "a\\x1b[2Jb\\nc"
    assert show({"value": 0.5, "low": 0.0001, "high": 0.75}, 2) == "0.50 (0.00–0.75)"
    assert show({"value": 0.5, "low": None, "high": None}, 2) == "0.50"


def test_a_note_is_a_whole_sentence() -> None:
    tables = tables_of(with_tables(document(), "negatives"))
    assert [note for table in tables for note in table.notes if not note.endswith(".")] == []


def test_a_matrix_has_a_column_for_each_method() -> None:
    made = document()
    cells = [{**each, "method": name} for name in ("m", "n") for each in made["cells"]]
    for each in cells:
        each["claim"], each["basis"] = (
            each["suspect"] == "unattacked" or (each["method"], each["seed"]) == ("m", 1),
            "calibrated",
        )
        each["destroyed"], each["utility_drop"] = each["suspect"] == "weak", 0.25 if each["suspect"] == "weak" else 0.0
    exact = {**cells[0], "method": "exact", "basis": "exact", "bit_error_rate": 0.125}
    attacks, innocents = tables_of(with_tables({**made, "cells": [*cells, exact]}, "matrix"))
    assert attacks.headers() == ["attack", "lost", "m", "n", "exact"]
    assert attacks.rows == [
        ["unattacked", 0, "0.75*", "0.75*", "0.88*"],
        ["weak", 25, "0.25 1 of 2†", "0.25†", None],
    ]
    assert [row[1:] for row in innocents.rows] == [["1 of 2 (0.00)", "0 of 2 (0.00)", None]] * len(innocents.rows)
