"""The comparison pair by pair: figures against counts by hand, and the same ones on the command line, in Python and on the page."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from scipy.stats import binomtest

import amb
from amb.cli import main
from amb.errors import BadParamsError
from amb.evaluation.claims import correct_holm
from amb.evaluation.paired import detectable_difference
from amb.plugin.manager import Manager
from amb.report.formats import reporter_of
from amb.report.layouts import LAYOUTS, with_tables
from amb.report.tables import Table, tables_of
from amb.results.collect import collect
from tests.report.test_leaderboard import facts, judged
from tests.report.test_page import stored

REGISTRY = Manager().registry
LOSES = {"a": 0, "b": 9, "c": 3}
"""How many of twelve attacked suspects a method does not claim."""


def cells(method: str, seed: int = 0, loses: int | None = None) -> list[dict[str, Any]]:
    """Twelve attacked suspects of six families, four innocent ones of two sources."""
    n = LOSES[method] if loses is None else loses
    marked = [
        judged(method, f"attack {at}", float(at >= n), attack="prune:amount=0.4", group=f"family {at // 2}", seed=seed)
        for at in range(12)
    ]
    innocent = [
        judged(method, f"innocent {at}", float(method == "b" and at == 0), "negative", source=f"s{at // 2}", seed=seed)
        for at in range(4)
    ]
    return [*marked, *innocent]


def document(*methods: str) -> dict[str, Any]:
    return {"schema": 2, "runs": [facts()], "cells": [each for method in methods for each in cells(method)]}


def compared(found: dict[str, Any]) -> list[Table]:
    return tables_of(with_tables(found, "compare", describe=REGISTRY.describe_attack))


def rows_of(table: Table) -> list[dict[str, Any]]:
    return [dict(zip(table.headers(), row, strict=True)) for row in table.rows]


def test_figures_are_those_of_the_suspects_that_differ() -> None:
    marked, innocent = compared(document("a", "b"))
    suspects, families = rows_of(marked)
    assert (suspects["n"], suspects["more"], suspects["fewer"]) == (12, 9, 0)
    assert suspects["p"] == pytest.approx(binomtest(9, 9).pvalue)
    assert (suspects["claimed"], suspects["claimed by other"]) == pytest.approx((1, 3 / 12))
    assert suspects["difference"]["value"] == pytest.approx(9 / 12)
    assert (families["over"], families["n"], families["more"], families["fewer"]) == ("families", 6, 5, 0)
    assert families["p"] == pytest.approx(binomtest(5, 5).pvalue)
    assert families["difference"]["value"] == pytest.approx(9 / 12)
    assert "p Holm" not in marked.headers(), "two methods are one comparison"
    assert families["difference"]["low"] < suspects["difference"]["low"], "so few families say less"
    assert [row["over"] for row in rows_of(innocent)] == ["suspects", "sources"]
    assert [row["n"] for row in rows_of(innocent)] == [4, 2]
    assert [row["difference"]["value"] for row in rows_of(innocent)] == pytest.approx([-1 / 4, -1 / 4])


def test_a_sentence_says_what_is_shown_and_what_so_few_cannot_show() -> None:
    marked, innocent = compared(document("a", "b"))
    (said,) = marked.findings
    assert said.startswith("a against b: no difference is shown; difference +0.75 (+")
    assert said.endswith("over 6 families, p = 0.062. One of 0.96 or more could have been, at best.")
    assert innocent.findings == ["a against b: no difference could be shown, for there are 2 sources and it takes 6."]
    clear = document("a")
    clear["cells"] += cells("b", loses=12)
    assert compared(clear)[0].findings[0].startswith("a against b: claims more; difference +1.00 (+")


def test_seeds_are_no_further_suspects() -> None:
    one, more = document("a", "b"), document("a", "b")
    more["cells"] += [each for method in "ab" for seed in (1, 2) for each in cells(method, seed)]
    for once, often in zip(rows_of(compared(one)[0]), rows_of(compared(more)[0]), strict=True):
        assert {**once, "seeds": 3} == often


def test_several_methods_are_corrected_for_all_their_pairs() -> None:
    table = compared(document("a", "b", "c"))[0]
    for over in ("suspects", "families"):
        rows = [row for row in rows_of(table) if row["over"] == over]
        assert [(row["method"], row["other method"]) for row in rows] == [("a", "b"), ("a", "c"), ("b", "c")]
        assert [row["p Holm"] for row in rows] == pytest.approx(correct_holm([row["p"] for row in rows]))
        level = 0.05 / 3  # where Holm begins, so what a difference has to reach
        assert {row["detectable"] for row in rows} == {detectable_difference(rows[0]["n"], level)}
    assert table.findings[0] == "a against b: no difference could be shown, for there are 6 families and it takes 7."


def test_skips_are_counted_both_ways_and_the_rest_is_named() -> None:
    found = document("a", "b")
    found["cells"][16 + 9] |= {"status": "skipped", "reason": "no blocks", "detection_rate": None}
    found["cells"][16 + 10] |= {"status": "failed", "reason": "oh", "detection_rate": None}
    found["cells"][16 + 11]["destroyed"] = True
    found["cells"][0]["suspect"] = "elsewhere"
    table = compared(found)[0]
    ways = {(row["over"], row["skipped"]): row for row in rows_of(table)}
    assert ways["suspects", "left out"]["n"] == 8
    assert ways["suspects", "no claim"]["n"] == 9
    assert ways["suspects", "no claim"]["more"] == ways["suspects", "left out"]["more"] + 1
    notes = "\n".join(table.notes)
    assert "1 pair, an attack destroyed the model of one of them: attack 11." in notes
    assert "1 pair, one of them failed, or neither has a verdict: attack 10." in notes
    assert "Skipped by one of a and b: 1 pair: attack 9." in notes
    assert "2 cells of one that the other has not: elsewhere; attack 0." in notes
    assert len(table.findings) == 2


def test_one_method_is_no_comparison() -> None:
    (table,) = compared(document("a"))
    assert not table.rows
    assert table.findings == ["No two methods were read on the same suspects here; there is a."]


def test_owners_are_apart() -> None:
    both = document("a", "b")
    both["cells"] += [{**each, "owner": "toy/other"} for each in both["cells"]]
    assert [row["n"] for table in compared(both) for row in rows_of(table)] == [12, 6, 4, 2] * 2


class Entries(HTMLParser):
    """The texts of a page's table cells."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.entries: list[str] = []
        self.inside = False
        self.feed(text)

    def handle_starttag(self, tag: str, _attrs: Any) -> None:
        if tag in ("td", "th"):
            self.inside = True
            self.entries.append("")

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "th"):
            self.inside = False

    def handle_data(self, data: str) -> None:
        if self.inside:
            self.entries[-1] += data


def test_the_same_figures_on_the_command_line_in_python_in_layouts_and_on_the_page(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stored(document("a", "b", "c"), tmp_path)
    with pytest.raises(SystemExit) as stopped:
        main(["compare", "a", "b", "c", "--output-dir", str(tmp_path), "--format", "json"])
    assert stopped.value.code == 0
    (printed,) = tables_of(json.loads(capsys.readouterr().out))
    results = amb.load_results(tmp_path)
    (here,) = results.compare("a", "b", "c")
    assert [list(row) for row in here.rows] == printed.rows
    assert amb.compare(results, "b", "a")[0].rows[0][:2] == ["b", "a"]
    assert results.compare(kind="negative")[0].title.startswith("Pair by pair on innocent models")
    assert [list(row) for row in results.table("compare")[0].rows] == printed.rows
    frame = results.compare("a", "b").to_frame()
    assert frame["difference low"][0] == printed.rows[0][printed.headers().index("difference")]["low"]
    page = reporter_of("html", REGISTRY).render(collect(tmp_path))
    assert 'id="compare"' in page
    entries = Entries(page).entries
    for row in printed.texts():
        assert all(text in entries for text in row)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["a"], "A comparison takes two methods or more. Name them; there are results of: a, b."),
        (["a", "d"], "There are no results of method 'd'."),
        (["a", "b", "--kind", "forged"], "No two of a, b were read on the same forged suspects"),
        (["a", "b", "--sweep", "t"], "There is no sweep 't'"),
    ],
)
def test_what_cannot_be_compared_is_said_on_one_line(
    args: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stored(document("a", "b"), tmp_path)
    with pytest.raises(SystemExit) as stopped:
        main(["compare", *args, "--output-dir", str(tmp_path)])
    said = capsys.readouterr().err
    assert stopped.value.code == 2
    assert message in said
    assert said.count("\n") == 1


def test_an_unknown_kind_is_refused_in_python(tmp_path: Path) -> None:
    stored(document("a", "b"), tmp_path)
    with pytest.raises(BadParamsError, match="There is no kind 'negativ' of suspects. Did you mean negative"):
        amb.load_results(tmp_path).compare(kind="negativ")  # type: ignore[arg-type]


@pytest.mark.parametrize("format_", sorted(REGISTRY.reporters))
@pytest.mark.parametrize("layout", ["compare", "choice", "robustness"])
def test_it_renders_in_every_format(format_: str, layout: str) -> None:
    made = with_tables(document("a", "b", "c"), layout, describe=REGISTRY.describe_attack)
    assert "nan" not in reporter_of(format_, REGISTRY).render(made).lower()
    assert layout in LAYOUTS
