"""Layout `negatives`: how often a method fires on innocent models, by class, and thresholds judged on other negatives."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from amb.evaluation.calibration import held_out, rate_threshold, tau_for_negatives
from amb.evaluation.statistics import rate_over_seeds, supported_fpr
from amb.report.layouts.cells import Cell, group, judged, reasons, usable
from amb.report.tables import Column, Entry, Table, estimate

FPRS: Final = (0.01, 0.05, 0.1)
EPSILON: Final = 1e-3
"""Share of trials on innocent models that the calibrated tau lets pass."""


def negatives(document: Mapping[str, Any]) -> list[Table]:
    """False claims on each class of negatives; calibrated thresholds; calibrated tau."""
    innocent = [cell for cell in document["cells"] if cell["kind"] in ("negative", "forged")]
    known = judged(innocent)
    about = document["about"]
    return [
        Table(f"Innocent models by class, {about}", _CLASSES, _by_class(known), [*_CLASS_NOTES, *reasons(innocent)]),
        Table(
            f"Thresholds on R calibrated on negatives, {about}", _THRESHOLDS, _thresholds(document), _THRESHOLD_NOTES
        ),
        Table(f"τ calibrated on negatives, {about}", _TAU, _taus(known), _TAU_NOTES),
    ]


_CLASSES: Final = [
    Column("method", text=True),
    Column("class", text=True),
    Column("models"),
    Column("sources"),
    Column("R(τ)"),
    Column("highest R"),
    Column("false claims", 2),
]
_CLASS_NOTES: Final = (
    "Models made from one source are alike, so a source counts as one model, however many were made from it.",
    "R(τ): over trials, sources as clusters (Korn and Graubard); false claims: share of models claimed by eq. 13, likewise.",
    "forged: an innocent model read with a key that was made up for it; its verdict rests on the same key on other models.",
)


def _by_class(cells: Sequence[Cell]) -> list[list[Entry]]:
    classes = group(cells, lambda cell: (str(cell["method"]), _class(cell)))
    return [[*key, *_class_figures(members)] for key, members in sorted(classes.items())]


def _class(cell: Cell) -> str:
    if cell["kind"] == "forged":
        return f"forged: {str(cell['suspect']).partition(' on ')[0]}"
    return str(cell.get("group") or ("sibling" if cell["sibling"] else "independent"))


def _class_figures(cells: Sequence[Cell]) -> list[Entry]:
    models = len({cell["suspect"] for cell in cells})
    highest = max(cell["detection_rate"] for cell in cells)
    claims = _over_sources(cells, lambda cell: float(cell["owned"]), 1)
    return [models, len(group(cells, _source)), _rate(cells), highest, claims]


def _rate(cells: Sequence[Cell]) -> Entry:
    """R over trials, each source as one model."""
    return _over_sources(cells, lambda cell: float(cell["detection_rate"]), int(cells[0]["n_trials"]))


def _over_sources(cells: Sequence[Cell], share: Callable[[Cell], float], n: int) -> Entry:
    """Mean over sources of their mean share; the interval takes a source as a cluster of n draws."""
    means = [sum(map(share, each)) / len(each) for each in group(cells, _source).values()]
    return estimate(rate_over_seeds([mean * n for mean in means], [n] * len(means)))


_THRESHOLDS: Final = [
    Column("method", text=True),
    Column("negatives", text=True),
    Column("n neg."),
    Column("sources"),
    Column("wanted FPR", 2),
    Column("R has to exceed"),
    Column("held-out FPR", 2),
    Column("TPR of usable", 2),
    Column("lowest FPR"),
]
_THRESHOLD_NOTES: Final = (
    (
        "R has to exceed: the threshold that all these negatives give (conformal). Each seed has a key of its own, and a "
        "threshold of its own; the highest is shown."
    ),
    "held-out FPR: each source's models are judged by the threshold of all other sources; a source counts as one model.",
    "TPR: share of usable positive suspects above the threshold, which no positive has set.",
    "lowest FPR: 1 / (n + 1), the least that n negatives can support; – stands where they cannot support the wanted one.",
)


def _thresholds(document: Mapping[str, Any]) -> list[list[Entry]]:
    rows: list[list[Entry]] = []
    for method, cells in group(judged(document["cells"]), lambda cell: str(cell["method"])).items():
        innocent = [cell for cell in cells if cell["kind"] == "negative"]
        independent = [cell for cell in innocent if not cell["sibling"]]
        positive = usable([cell for cell in cells if cell["kind"] == "positive"])
        for name, chosen in (("independent", independent), ("all", innocent)):
            if chosen and (name == "independent" or len(innocent) > len(independent)):
                rows += [[method, name, *_threshold(chosen, positive, fpr)] for fpr in FPRS]
    return rows


def _threshold(innocent: Sequence[Cell], positive: Sequence[Cell], fpr: float) -> list[Entry]:
    """Thresholds are of one key, so of one seed; their errors are pooled by source."""
    seeds = group(innocent, lambda cell: int(cell["seed"]))
    at = {seed: rate_threshold([cell["detection_rate"] for cell in each], fpr) for seed, each in seeds.items()}
    lowest = max(supported_fpr(len(each)) for each in seeds.values())
    sizes: list[Entry] = [min(map(len, seeds.values())), len({_source(cell) for cell in innocent}), fpr]
    known = [threshold for threshold in at.values() if threshold is not None]
    if len(known) < len(at):
        return [*sizes, None, None, None, lowest]
    return [*sizes, max(known), _held_out(seeds.values(), fpr), _tpr(positive, at), lowest]


def _held_out(seeds: Any, fpr: float) -> Entry:
    n_false: dict[str, int] = {}
    n: dict[str, int] = {}
    for cells in seeds:
        by_source = {name: [cell["detection_rate"] for cell in each] for name, each in group(cells, _source).items()}
        for source, judged_by_others in held_out(by_source, fpr).items():
            n_false[source] = n_false.get(source, 0) + judged_by_others.n_false
            n[source] = n.get(source, 0) + judged_by_others.n
    shares = [n_false[source] / n[source] for source in n]
    return estimate(rate_over_seeds(shares, [1] * len(shares))) if n else None


def _tpr(positive: Sequence[Cell], at: Mapping[int, float | None]) -> Entry:
    judged_by = [(cell, at.get(int(cell["seed"]))) for cell in positive]
    hits = [cell["detection_rate"] > threshold for cell, threshold in judged_by if threshold is not None]
    return estimate(rate_over_seeds([sum(hits)], [len(hits)])) if hits else None


_TAU: Final = [
    Column("method", text=True),
    Column("negatives", text=True),
    Column("τ used"),
    Column("R(τ) on them"),
    Column("calibrated τ"),
]
_TAU_NOTES: Final = (
    (
        f"calibrated τ: the largest with which at most {EPSILON:g} of the trials on these models pass, by the upper limit of "
        "that share over sources; – where they are too few to say so of any τ. Coin flips would give another (docs/statistics.md): "
        "symbols that a method injects itself are not coins."
    ),
)


def _taus(cells: Sequence[Cell]) -> list[list[Entry]]:
    rows: list[list[Entry]] = []
    for method, members in group(cells, lambda cell: str(cell["method"])).items():
        innocent = [cell for cell in members if cell["kind"] == "negative"]
        for name, chosen in (("independent", [c for c in innocent if not c["sibling"]]), ("all", innocent)):
            if chosen:
                least = tau_for_negatives(_curves(chosen), int(chosen[0]["n_trials"]), EPSILON)
                rows.append([method, name, chosen[0]["tau"], _rate(chosen), least])
    return rows


def _curves(cells: Sequence[Cell]) -> list[list[float]]:
    """R(0), R(1), ... of each source, mean over its models."""
    return [
        [sum(rates) / len(rates) for rates in zip(*(cell["curve"] for cell in each), strict=True)]
        for each in group(cells, _source).values()
    ]


def _source(cell: Cell) -> str:
    return str(cell.get("source") or cell["suspect"])
