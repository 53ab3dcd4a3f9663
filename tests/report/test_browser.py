"""The HTML report in a real browser: quiet, alone, accessible, narrow enough for a phone, and its tables sort and filter."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from shutil import which
from typing import Any

import pytest

from amb.report.formats.html import HtmlReporter
from tests.report.test_page import NASTY, synthetic

CHROMIUM = which("chromium")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed: apt-get install chromium")
playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install playwright")


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report with names that would like to be obeyed, and with a table large enough to be data."""
    document = synthetic(methods=2, attacks=80, innocents=10, seeds=2)
    for at, name in enumerate(NASTY):
        document["cells"][at + 1] |= {"suspect": name, "attack": f"prune+{name}"}
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(HtmlReporter().render(document), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as started:
        launched = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield launched
        launched.close()


@pytest.fixture
def opened(browser: Any, file: Path) -> Iterator[Any]:
    """Opens the report; whatever the browser complains of or asks the network for fails the test."""
    contexts, trouble = [], []

    def open_(**options: Any) -> Any:
        contexts.append(browser.new_context(**options))
        page = contexts[-1].new_page()
        page.on("console", lambda message: trouble.append(message.text))
        page.on("pageerror", lambda error: trouble.append(str(error)))
        page.on("dialog", lambda dialog: (trouble.append(dialog.message), dialog.dismiss()))
        page.on("request", lambda request: trouble.append(request.url) if request.url != file.as_uri() else None)
        page.goto(file.as_uri())
        return page

    yield open_
    for context in contexts:
        context.close()
    assert not trouble


def column(page: Any, table: str, at: int) -> list[str]:
    return page.locator(f"table[aria-labelledby='{table}'], table:has(#{table})").first.evaluate(
        "(table, at) => [...table.tBodies[0].rows].map(row => row.cells[at].textContent)", at
    )


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(opened: Any, scheme: str) -> None:
    axe = pytest.importorskip(
        "axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed"
    ).Axe()
    page = opened(color_scheme=scheme)
    page.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
    found = axe.run(page).response["violations"]
    grave = {each["id"]: each["nodes"][0]["html"][:200] for each in found if each["impact"] in ("serious", "critical")}
    assert not grave


def test_a_phone_needs_no_scrolling_sideways(opened: Any) -> None:
    page = opened(viewport={"width": 390, "height": 844}, is_mobile=True, has_touch=True)
    page.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_a_phone_shows_captions_whole_and_that_tables_go_on(opened: Any) -> None:
    page = opened(viewport={"width": 390, "height": 844}, is_mobile=True, has_touch=True)
    ends = page.locator("section > .wide caption span").evaluate_all(
        "all => all.map(e => e.getBoundingClientRect().right)"
    )
    assert len(ends) > 5
    assert max(ends) <= 390
    shades = page.locator(".wide").first.evaluate("region => getComputedStyle(region).backgroundAttachment")
    assert shades == "local, local, scroll, scroll"


@pytest.mark.parametrize("width", [1280, 400])
def test_nothing_is_cut(opened: Any, width: int) -> None:
    page = opened(viewport={"width": width, "height": 1000})
    page.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    out = page.evaluate(
        "width => [...document.querySelectorAll('main *')].filter(each => !each.closest('.wide, .unseen, svg'))"
        ".filter(each => each.getBoundingClientRect().right > width + 1).map(each => each.className)",
        width,
    )
    assert not out
    if width == 1280:
        summary = page.locator("#summary .wide").first
        assert summary.evaluate("box => box.scrollWidth <= box.clientWidth"), "the first table needs no scrolling"


def test_rows_that_the_script_makes_break_where_the_others_do(opened: Any) -> None:
    row = opened().locator("#cells tbody th", has_text="<script>alert").first
    assert row.locator("wbr").count() == 2, "behind each slash that something follows"


def test_a_head_sorts_by_value_up_and_down_and_by_keyboard(opened: Any) -> None:
    page = opened()
    head = page.locator("table:has(#tables-table-1) thead th", has_text="R(τ)")
    head.locator("button").focus()
    page.keyboard.press("Enter")
    assert head.get_attribute("aria-sort") == "ascending"
    at = head.evaluate("head => head.cellIndex")
    rising = [float(text.split()[0]) for text in column(page, "tables-table-1", at)]
    assert rising == sorted(rising) and len(set(rising)) > 5
    page.keyboard.press("Enter")
    assert head.get_attribute("aria-sort") == "descending"
    assert [float(text.split()[0]) for text in column(page, "tables-table-1", at)] == rising[::-1]


def test_a_large_table_filters_shows_more_and_holds_names_as_they_are(opened: Any) -> None:
    page = opened()
    table = "cells-table-1"
    assert len(column(page, table, 0)) == 200
    tools = page.locator("#cells .tools")
    tools.get_by_role("button", name="Show 200 more").click()
    n_cells = 2 * 2 * 91
    assert len(column(page, table, 0)) == n_cells
    tools.get_by_role("searchbox").fill("m1 innocent-7")
    assert column(page, table, 0) == ["tiny/innocent-7"] * 2
    assert tools.get_by_role("status").text_content() == f"2 of 2 rows shown, {n_cells} in all"
    tools.get_by_role("searchbox").fill("<script>alert")
    assert column(page, table, 0) == [NASTY[0]]


def test_the_tables_are_there_without_the_script(browser: Any, file: Path) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(file.as_uri())
    assert page.locator("table:has(#summary-table-1) tbody tr").count() == 2
    assert page.locator("noscript p").first.is_visible()
    context.close()


def test_it_prints_with_every_part_open(opened: Any) -> None:
    page = opened()
    assert page.pdf(format="A4").startswith(b"%PDF-")
    assert page.locator("details:not([open])").count() == 0
