"""MLflow's own pages of a finished sweep in real Chromium: runs, parallel coordinates, R(tau), columns without a click."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.tracking.test_ui import METHODS, Ui, track_sweep

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = next((path for path in map(Path, ("/usr/bin/chromium", "/usr/bin/chromium-browser")) if path.exists()), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="Debian's chromium is not installed")
PATIENCE = 90_000


@pytest.fixture(scope="module")
def ui(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ui]:
    folder = tmp_path_factory.mktemp("mlflow")
    track_sweep(folder, "demo")
    started = Ui("--sweep", "demo", "--output-dir", str(folder))
    yield started
    started.stop()


@pytest.fixture(scope="module")
def context() -> Iterator[Any]:
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        context = browser.new_context(viewport={"width": 1440, "height": 1400})
        context.set_default_timeout(PATIENCE)
        yield context
        browser.close()


@pytest.fixture
def page(context: Any, ui: Ui, request: pytest.FixtureRequest) -> Iterator[Any]:
    """The page that the test is parametrized with; every request stays on this machine."""
    elsewhere: list[str] = []
    opened = context.new_page()
    opened.on("request", lambda r: None if r.url.startswith((ui.quiet, "data:", "blob:")) else elsewhere.append(r.url))
    opened.goto(ui.pages[request.param])
    yield opened
    opened.close()
    assert not elsewhere


def shoot(page: Any, tmp_path: Path, name: str) -> None:
    page.screenshot(path=str(tmp_path / f"{name}.png"))


@pytest.mark.parametrize("page", ["comparison"], indirect=True)
def test_the_comparison_shows_the_runs_and_parallel_coordinates(page: Any, tmp_path: Path) -> None:
    page.get_by_text(f"Comparing {len(METHODS)} Runs from 1 Experiment").wait_for()
    assert not page.locator("[data-assistant-ui]").count(), "MLflow's assistant stays shut and takes no room"
    axes = page.locator(".parcoords .axis-title")
    axes.first.wait_for()
    titles = axes.all_text_contents()
    assert "detection_rate" in titles, "detection is what the plot starts with"
    assert "method.n_triggers" in titles, "and what the sweep varied"
    for name in ("1 activemark n_triggers=8 · toy/owner · seed 0", "2 activemark n_triggers=9 · toy/owner · seed 0"):
        page.get_by_text(name).first.wait_for()
    ticks = page.locator(".parcoords .y-axis").filter(has=page.get_by_text("method", exact=True)).locator(".tick text")
    assert sorted(ticks.all_text_contents()) == ["1 activema", "2 activema"], "ten letters are shown, and they differ"
    for metric in ("attack/none", "attack/prune40", "auc"):  # the rows further down are drawn as one scrolls
        page.get_by_text(metric, exact=True).first.wait_for(state="attached")
    shoot(page, tmp_path, "comparison")


@pytest.mark.parametrize("page", ["methods"], indirect=True)
def test_the_charts_of_methods_are_there_without_a_click(page: Any, tmp_path: Path) -> None:
    page.get_by_text("Parallel Coordinates").first.wait_for()
    page.locator(".js-plotly-plot, .parcoords").first.wait_for()
    for title in ("detection_rate_at_tau", "worst_innocent_at_tau", "utility/main vs. detection_rate"):
        page.get_by_text(title).first.scroll_into_view_if_needed()
    chart = page.locator(".js-plotly-plot").filter(has=page.locator(".scatterlayer .trace"))
    chart.first.wait_for()
    drawn = chart.first.locator(".trace").evaluate_all("traces => traces.map(t => t.querySelectorAll('.point').length)")
    assert drawn.count(9) >= len(METHODS), "R(tau) stepped from tau = 0 to 8 for each method"
    assert page.get_by_text("2 matching runs").count()
    shoot(page, tmp_path, "methods")


@pytest.mark.parametrize("page", ["cells"], indirect=True)
def test_the_table_of_cells_has_its_columns_and_order(page: Any, tmp_path: Path) -> None:
    page.get_by_text("8 matching runs").wait_for()
    page.locator(".ag-header-cell[col-id*=attack]").first.wait_for()
    place = "cells => cells.map(c => [parseInt(c.style.left), c.getAttribute('col-id')]).sort((a, b) => a[0] - b[0])"
    headers = [name for _, name in page.locator(".ag-header-cell").evaluate_all(place)]
    shown = [name.split("`")[1] for name in headers if name.startswith(("params", "metrics", "tags"))]
    assert shown[:6] == ["method", "attack", "kind", "group", "seed", "detection_rate"]
    rates = page.locator('.ag-center-cols-container [col-id*="detection_rate"]').all_text_contents()
    values = [float(text) for text in rates if text.strip()]
    assert len(values) == 8
    assert values == sorted(values, reverse=True)
    shoot(page, tmp_path, "cells")
