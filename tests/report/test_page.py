"""The HTML report: one file without a network, names shown and not obeyed, the tables' figures, and small for 10,000 cells."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from amb.api.run import Run
from amb.errors import printable
from amb.plugin.manager import Manager
from amb.plugin.manager import manager as installed
from amb.plugin.specs import hookimpl
from amb.report.formats.html import HtmlReporter
from amb.report.page.build import sections_of
from amb.report.page.outcomes import SIGNS
from amb.results.collect import collect
from amb.results.lines import write_lines
from amb.testing.reporter import example_document
from tests.command import run_amb
from tests.conftest import QUICK, run_toy

NASTY = [
    "</script><script>alert(1)</script>",
    "<!-- <script> ]]>",
    '“quoted”, "twice" \'\x1b[2J\nbroken',
    "é漢字\ud800" * 125,
]
VOID = {"meta", "br", "input", "link", "img", "hr", "wbr"}
RUN = {
    "id": "r0", "suite": "toy", "owner": "toy/owner", "sweep": "s", "started": "2026-01-01T00:00:00+00:00", "seed": 0, "device": "cpu",
    "machine": {"system": "Linux", "architecture": "x", "cpus": 2}, "versions": {"amb": "9.8.7"}, "plugins": {"core": "x 1"},
    "profile": {"top": [1.0, 9.0], "median": [0.1, 0.2], "massive_share": [0.0, 1.0], "n_images": 9, "block": 1, "block_choice": "x"},
    "embeddings": [{"method": "m0", "utility_before": {"knn": 0.9}, "utility_after": {"knn": 0.8}, "peak_memory_mib": 5.0}],
}  # fmt: skip


def synthetic(methods: int = 2, attacks: int = 4, innocents: int = 3, seeds: int = 2, long: str = "") -> dict[str, Any]:
    """A collected document: (1 + attacks + innocents) x methods x seeds cells, as varied as real ones."""
    drawn = np.random.default_rng(0)
    suspects = [("unattacked", "none", "positive", None)]
    suspects += [
        (f"prune:amount=0.{n:03}{long}", f"prune:amount=0.{n:03}", "positive", f"family-{n % 9}")
        for n in range(attacks)
    ]
    suspects += [(f"tiny/innocent-{n}{long}", "none", "negative", f"class-{n % 12}") for n in range(innocents)]
    cells = [
        _cell(drawn, f"m{method}", seed, *suspect)
        for method in range(methods)
        for seed in range(seeds)
        for suspect in suspects
    ]
    return {"schema": 2, "runs": [RUN], "cells": cells}


def _cell(
    drawn: Any, method: str, seed: int, suspect: str, attack: str, kind: str, group: str | None
) -> dict[str, Any]:
    rho = drawn.integers(0, 12, 128) if kind == "positive" else drawn.integers(4, 33, 128)
    curve = [float((rho <= tau).mean()) for tau in range(33)]
    low = max(0.0, curve[5] - 0.1)
    return {
        **example_document()["cells"][0], "suite": "toy", "owner": "toy/owner", "sweep": "s", "run": "r0", "method": method, "seed": seed,
        "suspect": suspect, "attack": attack, "kind": kind, "group": group, "source": suspect, "tau": 5, "n_trials": 128, "n_negatives": 3,
        "fpr_supported": 0.25, "curve": curve, "detection_rate": curve[5], "interval": [low, min(1.0, curve[5] + 0.1)],
        "claim": kind == "positive", "utility_drop": float(drawn.random()) if kind == "positive" else None,
        "destroyed": bool(drawn.random() < 0.2) and kind == "positive", "report": {}, "utility": {"probe": float(drawn.random())},
        "digests": {"model": drawn.bytes(16).hex(), "key": f"{seed:032x}", "evidence": drawn.bytes(16).hex()},
    }  # fmt: skip


def stored(document: dict[str, Any], output: Path) -> None:
    """The document as a run would have left it."""
    folder = output / "runs" / "r0"
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps({"schema": 2, "run": document["runs"][0]}))
    (folder / "results.jsonl").write_text(write_lines(document["cells"], document["runs"][0]["id"]))


class Page(HTMLParser):
    """The tags, the attributes and the texts of a page; raises AssertionError where tags do not nest."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, str] = {}
        self.open: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open, self.open

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: Any) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, tag

    def handle_data(self, data: str) -> None:
        inside = self.open[-1] if self.open else ""
        self.texts[inside] = self.texts.get(inside, "") + data

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(scope="module")
def plain() -> str:
    return HtmlReporter(installed().registry.describe_attack).render(synthetic())


def test_sections_stand_in_order_and_the_summary_is_first(plain: str) -> None:
    sections = [section["id"] for section in Page(plain).named("section")]
    assert sections == [
        "summary", "choice", "tables", "curves", "robustness", "compare", "suspects", "innocents", "profile", "time", "attacks", "cells", "how", "provenance",
    ]  # fmt: skip
    assert "9.8.7" in plain
    assert len(Page(plain).named("svg")) == 6  # a curve for each of two methods, Pareto, ROC, profile, times


def test_the_summary_says_what_the_cells_say(plain: str) -> None:
    document = synthetic()
    kept = [c for c in document["cells"] if c["method"] == "m0" and c["attack"] != "none" and not c["destroyed"]]
    assert (
        f"m0 claims {len(kept)} of {len(kept)} usable attacked copies and raises 0 false claims on 6 readings" in plain
    )
    assert "9 sources of innocent models support no level below 0.100; 19 are needed for 0.05" in plain
    assert "3 negatives of 9 sources: a claim may be wrong for 1 in 10 sources of innocent models." in plain
    claimed = synthetic()
    for each in claimed["cells"]:
        each["claim"] = True
    assert "These results speak for no method" in HtmlReporter(installed().registry.describe_attack).render(claimed)


def fields_of(text: str) -> list[str]:
    """What each field of the picture says."""
    found = [attributes for _, attributes in Page(text).tags if (attributes.get("class") or "").startswith("field ")]
    return [f"{each['class'].removeprefix('field ')}: {each['title']}" for each in found if each.get("title")]  # type: ignore[union-attr]


def test_the_page_begins_with_a_field_for_each_method_and_model() -> None:
    document = synthetic(methods=2, attacks=100, innocents=3, seeds=1)
    cells = {(each["method"], each["suspect"]): each for each in document["cells"]}
    for each in cells.values():
        each["destroyed"] = False
    cells["m0", "prune:amount=0.001"]["claim"] = False
    cells["m0", "prune:amount=0.002"]["destroyed"] = True
    cells["m0", "prune:amount=0.003"] |= {"status": "skipped", "reason": "no head", "detection_rate": None}
    cells["m0", "tiny/innocent-1"]["claim"] = True
    text = HtmlReporter(installed().registry.describe_attack).render(document)
    fields = fields_of(text)
    assert len(fields) == 2 * 104
    outcomes = {
        each.split(": ")[1].split(":")[0] + each.split("prune")[-1][:13]: each.split(": ")[0] for each in fields[:104]
    }
    assert outcomes["prune:amount=0.001"] == "missed"
    assert outcomes["prune:amount=0.002"] == "destroyed"
    assert outcomes["prune:amount=0.003"] == "none"
    assert outcomes["prune:amount=0.004"] == "claimed"
    innocent = {each.split(": ")[1]: each.split(": ")[0] for each in fields[:104] if "innocent" in each}
    assert innocent == {"tiny/innocent-0": "silent", "tiny/innocent-1": "false", "tiny/innocent-2": "silent"}
    first = text.index('class="outcomes"')
    assert first < text.index("Methods without a false claim here"), "the picture, then the sentence"
    assert first < text.index("<table")


def test_each_outcome_has_a_sign_of_its_own_beside_its_colour() -> None:
    signs = [sign for sign, _ in SIGNS.values()]
    assert len(set(signs)) == len(signs) and all(len(sign) == 1 for sign in signs)


def test_a_suspect_that_is_claimed_at_some_seeds_is_partly_claimed() -> None:
    document = synthetic(methods=1, attacks=1, innocents=1, seeds=2)
    for each in document["cells"]:
        each |= {"destroyed": False, "claim": each["seed"] == 0}
    text = HtmlReporter(installed().registry.describe_attack).render(document)
    assert [each.split(": ")[0] for each in fields_of(text)] == ["partly", "partly", "false"]


def test_more_attacks_than_fields_stand_by_family() -> None:
    document = synthetic(methods=1, attacks=400, innocents=300, seeds=1)
    fields = fields_of(HtmlReporter(installed().registry.describe_attack).render(document))
    assert len(fields) == 1 + 9 + 12
    assert any("family-3, all together: claimed " in each for each in fields)


def test_nothing_is_loaded_and_ids_are_unique(plain: str) -> None:
    page = Page(plain)
    for tag, attributes in page.tags:
        assert tag not in ("link", "img", "iframe", "object", "embed", "base", "form")
        assert not {"src", "srcset", "data", "action", "poster", "style" if tag == "script" else "src"} & set(
            attributes
        )
        for name in ("href", "xlink:href"):
            assert (attributes.get(name) or "#").startswith("#")
        assert not [name for name in attributes if name.startswith("on")]
    assert "url(http" not in plain and "@import" not in plain
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    referred = {
        part for _, a in page.tags for key in ("aria-labelledby", "data-rows") for part in (a.get(key) or "").split()
    }
    assert referred <= set(ids)


def test_tables_have_headers_and_pictures_have_words(plain: str) -> None:
    page = Page(plain)
    assert page.named("html")[0]["lang"] == "en"
    assert all(head.get("scope") in ("col", "row") for head in page.named("th"))
    assert len(page.named("caption")) == len(page.named("table"))
    assert all(drawn["role"] == "img" and drawn["aria-labelledby"] for drawn in page.named("svg"))


def test_attacks_are_explained_from_what_is_installed(plain: str) -> None:
    assert "Results of prune" in plain
    assert "prune, parameters and defaults" in plain
    foreign = synthetic()
    for each in foreign["cells"]:
        each["attack"] = each["attack"].replace("prune", "sorcery")
    assert "The plugin that provides it is not installed here." in HtmlReporter(
        installed().registry.describe_attack
    ).render(foreign)


@pytest.mark.parametrize("name", NASTY)
def test_names_are_shown_and_obeyed_by_nobody(name: str, plain: str) -> None:
    document = synthetic()
    for each in document["cells"]:
        for key in ("suspect", "attack", "method", "group", "owner", "suite"):
            each[key] = f"{each[key]}{name}"
    document["cells"][0] |= {"status": "failed", "reason": name, "detection_rate": None}
    document["runs"] = [
        {**RUN, "suite": f"toy{name}", "owner": f"toy/owner{name}", "git_commit": name, "versions": {name: name}}
    ]
    text = HtmlReporter(installed().registry.describe_attack).render(document)
    text.encode("utf-8")
    page = Page(text)
    assert len(page.named("script")) == len(Page(plain).named("script"))
    assert not re.search(r"[\x00-\x09\x0b-\x1f]", text)
    assert printable(f"m0{name}") in page.texts["th"]


def test_a_large_table_is_data_that_no_name_can_leave() -> None:
    document = synthetic(methods=1, attacks=320, innocents=0, seeds=1)
    document["cells"][5]["suspect"] = NASTY[0]
    text = HtmlReporter(installed().registry.describe_attack).render(document)
    page = Page(text)
    assert [script.get("type") for script in page.named("script")].count("application/json") >= 1
    blocks = re.findall(r'<script type="application/json" id="cells-table-1-data">(.*?)</script>', text, re.DOTALL)
    data = json.loads(blocks[0])
    assert len(data["rows"]) == 321
    assert data["words"][data["rows"][5][0]] == NASTY[0]
    assert "switched off here" in text


def test_a_single_run_is_the_same_page_with_its_own_tables() -> None:
    document = example_document()
    page = HtmlReporter(installed().registry.describe_attack).render(document)
    assert "This run" in page
    assert all(each["suspect"] in page for each in document["cells"])
    assert "Caution: 1 of 3 cells failed" in page


def test_the_same_results_give_the_same_page(plain: str) -> None:
    assert HtmlReporter(installed().registry.describe_attack).render(synthetic()) == plain


def test_forged_keys_have_a_class_of_their_own() -> None:
    document = synthetic()
    document["cells"] += [
        {**each, "kind": "forged", "attack": "forge", "claim": True} for each in document["cells"][:2]
    ]
    text = HtmlReporter(installed().registry.describe_attack).render(document)
    assert "2 of 2" in text
    assert "forged keys" not in Page(text).texts.get("script", "")


def test_ten_thousand_cells_stay_below_ten_mib() -> None:
    document = synthetic(methods=5, attacks=149, innocents=50, seeds=10)
    assert len(document["cells"]) == 10_000
    text = HtmlReporter(installed().registry.describe_attack).render(document)
    assert len(text.encode()) < 10 * 2**20
    assert len(Page(text).named("tr")) < 3000  # rows that a browser has to lay out at once


def test_report_without_a_layout_is_the_whole_page(tmp_path: Path) -> None:
    stored(synthetic(), tmp_path)
    ask = ["report", "--output-dir", str(tmp_path), "--format", "html"]
    file = tmp_path / "report.html"
    run_amb(*ask, "-o", str(file)).check_returncode()
    assert file.read_text() == HtmlReporter(installed().registry.describe_attack).render(collect(tmp_path)) + "\n"
    tables = run_amb(*ask, "--layout", "suspects").stdout
    assert "Telling positive from negative" in tables
    assert not Page(tables).named("svg")


def test_long_specs_may_break_behind_their_signs_and_nowhere_else(plain: str) -> None:
    assert "<wbr>" not in plain
    document = synthetic()
    spec = "finetune:lr=0.0001,weight_decay=0.01+<b>prune"
    document["cells"][1] |= {"suspect": spec}
    text = HtmlReporter(installed().registry.describe_attack).render(document)
    assert "finetune:<wbr>lr=0.0001,<wbr>weight_decay=0.01+<wbr>&lt;b&gt;prune" in text


def test_a_run_that_goes_on_shows_its_profile_and_embeddings(manager: Manager, tmp_path: Path) -> None:
    seen: list[dict[str, Any]] = []

    class Onlooker:
        @hookimpl(trylast=True)
        def amb_cell_finished(self, run: Run) -> None:
            seen.append(collect(tmp_path))

    manager.register(Onlooker(), "onlooker")
    run = run_toy(manager, tmp_path, methods=[QUICK.replace("steps=150", "steps=5")], attacks=[])
    assert len(seen) == len(run.results) > 1
    for document in seen[1:]:  # who writes the files may hear of a cell after the onlooker
        (header,) = document["runs"]
        assert header["profile"]["top"] == run.profile["top"]
        assert [each["method"] for each in header["embeddings"]] == [run.plan.methods[0].canonical()]
    profile = next(each for each in sections_of(seen[1], lambda _: None) if each.name == "profile")
    assert len(profile.pictures) == 1


def test_where_no_run_has_a_profile_the_page_says_why(plain: str) -> None:
    document = synthetic()
    document["runs"] = [{**RUN, "profile": None}]
    (section,) = [each for each in sections_of(document, lambda _: None) if each.name == "profile"]
    assert not section.pictures and not section.tables
    assert "a run that goes on writes it with its first cell" in HtmlReporter(
        installed().registry.describe_attack
    ).render(document)
    assert "a run that goes on" not in plain


def test_one_run_is_not_called_runs(plain: str) -> None:
    assert "cells of 1 run of" in plain
    two = {**synthetic(), "runs": [RUN, {**RUN, "id": "r1"}]}
    assert "cells of 2 runs of" in HtmlReporter(installed().registry.describe_attack).render(two)
