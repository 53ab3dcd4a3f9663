"""Makes the README's pictures: MLflow's comparison of a finished sweep, and an HTML report.

    python docs/screenshots.py OUTPUT_DIR REPORT.html [--sweep NAME]

Needs playwright and Debian's chromium.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, Final

IMAGES: Final = Path(__file__).parent / "img"
CHROMIUM: Final = "/usr/bin/chromium"
LARGEST: Final = 300_000
"""Bytes of a picture."""
PRESETS: Final = """
localStorage.setItem('mlflow.assistant.fab.autoOpenedOnFirstLoad_v1', 'true');
localStorage.setItem('mlflow.assistant.panelOpen_v1', 'false');
"""
SETTLED: Final = 6_000
"""Milliseconds until MLflow's plots stand still."""


def main() -> None:
    """Write docs/img/mlflow.png and docs/img/report.png."""
    from playwright.sync_api import sync_playwright

    asked = _arguments()
    IMAGES.mkdir(exist_ok=True)
    with sync_playwright() as started, serving(asked.output_dir, asked.sweep) as pages:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        mlflow = _page(browser, pages[asked.page])
        mlflow.locator(".parcoords .axis-title, .js-plotly-plot .parcoords").first.wait_for(timeout=90_000)
        mlflow.wait_for_timeout(SETTLED)
        _shoot(mlflow, IMAGES / "mlflow.png")
        _shoot(_page(browser, asked.report.resolve().as_uri()), IMAGES / "report.png")
        browser.close()


@contextmanager
def serving(output: Path, sweep: str | None) -> Iterator[dict[str, str]]:
    """The pages of `amb ui`, by name, while it runs."""
    command = [sys.executable, "-m", "amb", "ui", "--no-browser", "--output-dir", str(output)]
    command += ["--sweep", sweep] if sweep else []
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        lines = list(islice(process.stdout or [], 5))
        if len(lines) < 5:
            sys.exit(process.wait())
        yield dict(line.split(maxsplit=1) for line in lines[1:])
    finally:
        process.terminate()
        process.wait()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output_dir", type=Path, help="output folder of a finished sweep")
    parser.add_argument("report", type=Path, help="file that `amb report --format html` has written")
    parser.add_argument("--sweep", help="only the runs of this sweep")
    parser.add_argument("--page", default="comparison", choices=("comparison", "methods", "cells", "attacks"))
    return parser.parse_args()


def _page(browser: Any, address: str) -> Any:
    page = browser.new_context(viewport={"width": 1280, "height": 860}, color_scheme="light").new_page()
    page.add_init_script(f"try {{ {PRESETS} }} catch {{}}")  # a report in a file has no storage
    page.goto(address.strip())
    return page


def _shoot(page: Any, path: Path) -> None:
    page.screenshot(path=str(path))
    size = path.stat().st_size
    print(f"{path}: {size / 1000:.0f} kB")
    if size > LARGEST:
        sys.exit(f"{path} is larger than {LARGEST / 1000:.0f} kB; make the page smaller.")


if __name__ == "__main__":
    main()
