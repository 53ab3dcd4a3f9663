"""What the layouts share: how a cell of a document is grouped, named and turned into entries."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import Any, TypeVar

from amb.evaluation.primary_utility import primary_utility
from amb.evaluation.statistics import mean_over_seeds, rate_over_seeds
from amb.report.tables import Entry, estimate

Cell = Mapping[str, Any]
K = TypeVar("K", bound=Hashable)
MOST_NAMED = 6
"""Suspects that a note names before it counts the rest."""


def group(cells: Iterable[Cell], key: Callable[[Cell], K]) -> dict[K, list[Cell]]:
    """Cells by key, in the order in which the keys come."""
    groups: dict[K, list[Cell]] = {}
    for cell in cells:
        groups.setdefault(key(cell), []).append(cell)
    return groups


def judged(cells: Iterable[Cell]) -> list[Cell]:
    """The cells that have a verdict."""
    return [cell for cell in cells if cell["status"] == "ok" and cell["detection_rate"] is not None]


def usable(cells: Iterable[Cell]) -> list[Cell]:
    """Those that kept their utility: a destroyed model counts neither for nor against robustness."""
    return [cell for cell in cells if not cell.get("destroyed")]


def kind_of(cell: Cell) -> str:
    """`positive`, `negative`, `sibling` or `forged`."""
    return "sibling" if cell["sibling"] and cell["kind"] == "negative" else str(cell["kind"])


def interval_entry(cell: Cell) -> Entry:
    """R with its interval over trials."""
    low, high = cell["interval"]
    return {"value": cell["detection_rate"], "low": low, "high": high}


def rate_entry(cells: Iterable[Cell], tau: int | None = None) -> Entry:
    """Mean R over seeds with its interval, at the cells' own tau or another; None where no cell has a verdict.

    All cells of a seed are one cluster, whatever the number of suspects in the group.
    """
    seeds = group(judged(cells), lambda cell: int(cell["seed"]))
    if not seeds:
        return None
    detected = [sum(_detected(cell, tau) for cell in each) for each in seeds.values()]
    trials = [sum(int(cell["n_trials"]) for cell in each) for each in seeds.values()]
    return estimate(rate_over_seeds(detected, trials))


def mean_entry(values: Iterable[float | None]) -> Entry:
    """Mean over seeds with Student's interval; None where there is nothing to average."""
    known = [value for value in values if value is not None]
    return estimate(mean_over_seeds(known)) if known else None


def utility_text(utility: Mapping[str, float]) -> str | None:
    """Such as `acc 0.963`."""
    found = primary_utility(utility)
    return f"{found[0]} {found[1]:.3f}" if found else None


def reasons(cells: Iterable[Cell]) -> list[str]:
    """Why cells have no verdict, each reason once, with the suspects and seeds that it holds for."""
    found: dict[tuple[str, str, str], dict[str, set[int]]] = {}
    for cell in cells:
        if cell["status"] != "ok":
            key = (str(cell["method"]).partition(":")[0], str(cell["status"]), _general(cell))
            found.setdefault(key, {}).setdefault(str(cell["suspect"]), set()).add(int(cell["seed"]))
    return [
        f"{method} on {some(list(suspects))}: {status}: {why} (seed {', '.join(map(str, sorted(set.union(*suspects.values()))))})"
        for (method, status, why), suspects in found.items()
    ]


def _general(cell: Cell) -> str:
    """The reason with `it` for the suspect, so that the same reason of many suspects is one line."""
    text = str(cell["reason"])
    for name in (cell["suspect"], cell.get("source")):
        text = text.replace(str(name), "it") if name else text
    return text


def some(names: list[str]) -> str:
    """The first few of many."""
    more = len(names) - MOST_NAMED
    return "; ".join(names[:MOST_NAMED]) + (f" and {more} more" if more > 0 else "")


def _detected(cell: Cell, tau: int | None) -> int:
    """Trials detected at tau, or at the cell's own."""
    rate = cell["detection_rate"] if tau is None else cell["curve"][min(tau, len(cell["curve"]) - 1)]
    return round(float(rate) * int(cell["n_trials"]))
