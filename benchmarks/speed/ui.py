"""How long `amb ui` takes until MLflow's pages show hundreds of summaries: made-up results, tracked as real ones are."""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from amb.api.plan import Plan
from amb.api.records import CellResult, Verdict
from amb.api.run import Run
from amb.execution.planning import make_plan
from amb.execution.provenance import find_provenance, name_run
from amb.plugin.manager import manager
from amb.plugin.registry import Registry
from amb.tracking import observer as tracking
from amb.tracking.links import connect, links
from amb.tracking.server import pick_port, serving

SWEEP = "made-up"
CHROMIUM = "/usr/bin/chromium"
METHODS = ["activemark", "activemark-contrastive", "activemark-code", "advtra", "ipguard", "ipguard-noise"]
SUSPECTS = 4
"""Of each method: an innocent model, the unattacked one and two attacked ones."""
SHOWN = {"comparison": ".parcoords .axis-title", "methods": ".js-plotly-plot .trace", "cells": ".ag-row", "attacks": ".js-plotly-plot .trace"}  # fmt: skip
"""What stands on a page once it answers."""


def main() -> None:
    """Track, serve, and open every page in headless Chromium."""
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--owners", type=int, default=20)
    asked.add_argument("--seeds", type=int, default=3)
    sizes = asked.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder)
        started = time.perf_counter()
        n_runs = track(output, sizes.owners, sizes.seeds)
        n_methods = n_runs * len(METHODS)
        told(f"tracked {n_methods} summaries and {n_methods * SUSPECTS} cells", started)
        show(output)


def track(output: Path, owners: int, seeds: int) -> int:
    """Runs as a sweep would leave them, one for each owner and seed; how many."""
    registry, drawn = manager().registry, random.Random(0)  # noqa: S311 (figures, no secrets)
    facts = find_provenance(manager().plugins)
    for owner in range(owners):
        for seed in range(seeds):
            plan = made_up(registry, f"made-up/owner-{owner}", seed)
            run = Run(name_run(plan), plan, output, facts, SWEEP)
            tracking.amb_run_started(run)
            for cell in plan.cells():
                run.add(CellResult(cell, "ok", verdict=verdict(drawn), utility={"knn": drawn.random()}, seconds={"embed": 40.0, "attack": 1.0, "extract": drawn.random()}))  # fmt: skip
                tracking.amb_cell_finished(run, cell, run.results[-1])
            tracking.amb_run_finished(run)
    return owners * seeds


def made_up(registry: Registry, owner: str, seed: int) -> Plan:
    plan = make_plan(registry, suite="tiny", methods=METHODS, attacks=["prune40", "prune80"], seed=seed)
    return replace(plan, owner=owner, suspects=plan.suspects[-SUSPECTS:])


def verdict(drawn: random.Random) -> Verdict:
    rate = drawn.random()
    curve = tuple(min(1.0, rate + tau / 64) for tau in range(33))
    p_values = dict.fromkeys(("binomial", "permutation", "calibrated"), 0.1)
    return Verdict(
        claim=rate > 0.5, p_value=0.1, basis="calibrated", level=0.1, n_sources=9, alphabet=2, paper_rule=rate > 0.5, bound=0.5,
        trial_fpr=1e-4, detection_rate=rate, interval=(rate, rate), curve=curve, bit_error_rate=0.1, tau=5, alpha=0.05,
        p_values=p_values, margin=0.1, n_trials=128, n_negatives=9, fpr_supported=0.1,
    )  # fmt: skip


def show(output: Path) -> None:
    from playwright.sync_api import sync_playwright

    started = time.perf_counter()
    client, experiment = connect(output)
    pages = links(client, experiment, SWEEP, print)
    told("found what to compare", started)
    started = time.perf_counter()
    with serving(output, "127.0.0.1", pick_port("127.0.0.1", None), 300, lambda _: None) as server:
        told("the server answers", started)
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
            for name, path in pages.items():
                page = browser.new_context(viewport={"width": 1440, "height": 1400}).new_page()
                open_page(page, name, server.address + path)
            browser.close()


def open_page(page: Any, name: str, address: str) -> None:
    """Wait until it shows, then until it has scrolled and drawn: a busy page lets nothing through."""
    started = time.perf_counter()
    page.goto(address)
    page.locator(SHOWN[name]).first.wait_for(timeout=300_000)
    told(f"{name} shows", started)
    page.mouse.wheel(0, 800)
    page.evaluate("() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
    told(f"{name} has scrolled", started)
    page.close()


def told(what: str, started: float) -> None:
    print(f"{what}: {time.perf_counter() - started:.1f} s", flush=True)


if __name__ == "__main__":
    main()
