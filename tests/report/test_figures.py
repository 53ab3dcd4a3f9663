"""Figures show what statistics says, computed here in another way; files are what their endings say; names obey nothing."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from scipy.stats import binomtest

from amb.errors import BadParamsError, MissingError, UnknownNameError
from amb.report import figures
from amb.report.figures import FIGURE_KINDS, save, svg
from amb.report.figures.suspects import front
from amb.results.result_set import parse_results
from amb.testing.reporter import example_document
from tests.command import run_amb

NASTY = ["<script>alert(1)</script>", "$x_{1}$ $", '"quoted"\nline\x1b[2J', "_hidden", "é漢字\ud800" * 100]
RUN = {
    "id": "r0", "suite": "toy", "owner": "toy/owner", "embeddings": [],
    "profile": {"top": [1.0, 9.0, 11.0], "median": [0.1, 0.2, 0.3], "block": 1},
}  # fmt: skip


def cell(suspect: str, curve: list[float], kind: str = "positive", **facts: Any) -> dict[str, Any]:
    """A judged cell of 20 trials, detected at tau = 1."""
    attack = "prune" if kind == "positive" and suspect != "unattacked" else "none"
    return {
        **example_document()["cells"][0], "suite": "toy", "owner": "toy/owner", "run": "r0", "suspect": suspect, "kind": kind,
        "attack": attack, "curve": curve, "tau": 1, "detection_rate": curve[1], "n_trials": 20, "utility_drop": 0.1,
        "seconds": {"embed": 20.0, "attack": 1.0, "extract": 0.5}, **facts,
    }  # fmt: skip


def document(method: str = "m", suspect: str = "prune20") -> dict[str, Any]:
    cells = [
        cell("unattacked", [0.9, 1.0, 1.0]),
        cell(suspect, [0.5, 0.8, 1.0], utility_drop=0.2),
        cell("prune90", [0.0, 0.1, 1.0], utility_drop=0.7, destroyed=True),
        cell("other-seed", [0.0, 0.1, 1.0], "negative", group="other-seed"),
        cell("twin", [0.2, 0.9, 1.0], "negative", sibling=True, group="unmarked"),
    ]
    return {"schema": 2, "runs": [RUN], "cells": [{**each, "method": method} for each in cells]}


def draw(kind: str, shown: dict[str, Any]) -> Any:
    return figures.draw(kind, parse_results(shown))


def lines(figure: Any) -> dict[str, Any]:
    return {line.get_label(): line for axes in figure.axes for line in axes.get_lines()}


def test_curves_are_rates_with_clopper_pearson_bands() -> None:
    figure = draw("detection-curve", document())
    found = lines(figure)
    assert list(found["unattacked"].get_ydata()) == pytest.approx([0.9, 1.0, 1.0])
    assert list(found["prune"].get_ydata()) == pytest.approx([0.5, 0.8, 1.0])  # the destroyed one is left out
    band = figure.axes[0].collections[0].get_paths()[0].vertices
    exact = binomtest(18, 20).proportion_ci(method="exact")
    at_zero = band[band[:, 0] == 0][:, 1]
    assert (at_zero.min(), at_zero.max()) == pytest.approx((exact.low, exact.high))


def test_bands_take_a_seed_as_the_cluster() -> None:
    spread = {**document(), "cells": [cell("unattacked", [r, r, 1.0], seed=s) for s, r in enumerate((0.2, 0.5, 0.8))]}
    band = draw("detection-curve", spread).axes[0].collections[0].get_paths()[0].vertices
    naive = binomtest(30, 60).proportion_ci(method="exact")
    at_zero = band[band[:, 0] == 0][:, 1]
    assert at_zero.min() < naive.low - 0.05
    assert at_zero.max() > naive.high + 0.05


def test_many_families_are_gathered_and_the_weakest_keep_their_names() -> None:
    many = document()
    many["cells"] += [cell(f"a{n}", [0.1, 0.5 + n / 50, 1.0], group=f"family {n}") for n in range(20)]
    names = [name for name in lines(draw("detection-curve", many)) if not name.startswith("_")]
    assert "family 0" in names
    assert "family 19" not in names
    assert any(name.startswith("other attacks (") for name in names)
    assert len(names) <= 12


def test_roc_is_that_of_brute_force() -> None:
    line = next(line for name, line in lines(draw("roc", document())).items() if name.startswith("m\n"))
    marked, innocents = np.array([1.0, 0.8]), np.array([0.1, 0.9])  # the destroyed one is left out
    steps = {(float((innocents >= t).mean()), float((marked >= t).mean())) for t in (2.0, 1.0, 0.9, 0.8, 0.1)}
    assert set(zip(*line.get_data(), strict=True)) == steps
    pairs = [(a > b) + 0.5 * (a == b) for a in marked for b in innocents]
    assert f"AUC {np.mean(pairs):.2f} (" in line.get_label()


def test_the_legend_of_pareto_says_what_hollow_means_where_something_is() -> None:
    def texts(shown: dict[str, Any]) -> list[str]:
        return [text.get_text() for text in draw("pareto", shown).axes[0].get_legend().get_texts()]

    assert texts(document()) == ["m", "hollow: destroyed"]
    kept = [each for each in document()["cells"] if not each.get("destroyed")]
    assert texts({**document(), "cells": kept}) == ["m"]


def test_pareto_marks_the_destroyed_and_draws_the_front_of_the_others() -> None:
    axes = draw("pareto", document()).axes[0]
    hollow = [line for line in axes.get_lines() if line.get_markerfacecolor() == "none"]
    assert [tuple(map(float, data)) for data in zip(*hollow[0].get_data(), strict=True)] == [pytest.approx((0.3, 0.1))]
    steps = next(line for line in axes.get_lines() if line.get_drawstyle() == "steps-pre")
    assert list(steps.get_ydata()) == pytest.approx([1.0, 0.8])


def test_front_holds_what_no_other_beats() -> None:
    drawn = np.random.default_rng(0).random((40, 2)).round(1)
    points = [(float(u), float(r), False) for u, r in drawn] + [(1.0, 0.0, True)]
    beaten = lambda p: any(q[0] >= p[0] and q[1] <= p[1] and q[:2] != p[:2] for q in points if not q[2])  # noqa: E731
    assert set(front(points)) == {p[:2] for p in points if not p[2] and not beaten(p)}


def test_profile_and_times_are_the_documents() -> None:
    drawn = lines(draw("profile", document()))
    assert list(drawn["mean of the top 5"].get_ydata()) == [1.0, 9.0, 11.0]
    assert list(drawn["embed at block 1"].get_xdata()) == [1, 1]
    taken = lines(draw("timing", document()))
    assert (taken["embed"].get_xdata()[0], taken["extract"].get_xdata()[0]) == (20.0, 0.5)


def test_two_owners_are_two_series() -> None:
    both = document()
    both["cells"] += [{**each, "owner": "toy/other"} for each in both["cells"]]
    assert len(draw("detection-curve", both).axes) == 2
    assert len([name for name in lines(draw("roc", both)) if "AUC" in name]) == 2


@pytest.mark.parametrize("kind", FIGURE_KINDS)
@pytest.mark.parametrize(("ending", "magic"), [("png", b"\x89PNG\r\n\x1a\n"), ("svg", b"<?xml"), ("pdf", b"%PDF-")])
def test_every_kind_goes_to_every_ending_the_same_each_time(
    kind: str, ending: str, magic: bytes, tmp_path: Path
) -> None:
    files = [tmp_path / f"{n}.{ending}" for n in (0, 1)]
    for file in files:
        save(draw(kind, document()), file)
    one, two = (file.read_bytes() for file in files)
    assert one.startswith(magic)
    assert one == two
    if ending == "pdf":
        assert b"/Type3" not in one and b"/FontFile2" in one  # TrueType inside the file
    if ending == "svg":
        assert "<text" not in one.decode()  # letters are shapes: no font is needed


@pytest.mark.parametrize("kind", FIGURE_KINDS)
@pytest.mark.parametrize("name", NASTY)
def test_names_are_drawn_and_obeyed_by_nobody(kind: str, name: str) -> None:
    named = document(name, name)
    named["runs"] = [{**RUN, "owner": name}]
    text = svg(draw(kind, named), "f1", name, name)
    tree = ET.fromstring(text.replace("xlink:href", "href"))
    assert not [each for each in tree.iter() if each.tag.endswith("script")]
    assert tree.get("role") == "img"
    ids = re.findall(r'\bid="([^"]*)"', text)
    assert len(ids) == len(set(ids))
    assert all(each.startswith("f1-") for each in ids)
    assert set(re.findall(r'href="#([^"]*)"|url\(#([^)]*)\)', text)) <= {(i, "") for i in ids} | {("", i) for i in ids}


def test_what_cannot_be_drawn_is_said_in_one_line(tmp_path: Path) -> None:
    nothing = {"schema": 2, "runs": [], "cells": []}
    for kind in FIGURE_KINDS:
        with pytest.raises(MissingError, match="There is nothing to draw"):
            draw(kind, nothing)
    with pytest.raises(UnknownNameError, match="No figure is called 'rok'. Did you mean roc?"):
        draw("rok", nothing)
    with pytest.raises(BadParamsError, match=r"cannot go to 'a.gif': the file has to end in .png"):
        save(draw("roc", document()), tmp_path / "a.gif")
    with pytest.raises(BadParamsError, match="cannot go to .*No such file"):
        save(draw("roc", document()), tmp_path / "none" / "a.svg")
    many = {**document(), "cells": [{**cell("unattacked", [0, 1.0]), "method": f"m{n}"} for n in range(13)]}
    with pytest.raises(BadParamsError, match="13 methods cannot be read; it takes 12"):
        draw("roc", many)


def test_the_command_writes_a_file_and_says_where(tmp_path: Path) -> None:
    from tests.report.test_page import stored

    stored(document(), tmp_path)
    ask = ["figure", "roc", "--output-dir", str(tmp_path)]
    done = run_amb(*ask, "-o", str(tmp_path / "x.pdf"))
    assert (done.returncode, done.stdout.strip()) == (0, str(tmp_path / "x.pdf")), done.stderr
    assert (tmp_path / "x.pdf").read_bytes().startswith(b"%PDF-")
    wrong = run_amb(*ask, "--method", "mm", "-o", str(tmp_path / "y.pdf"))
    assert wrong.returncode == 2
    assert wrong.stderr.strip() == "amb: There are no results of method 'mm'. Did you mean m? There are: m."
