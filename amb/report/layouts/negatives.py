"""Layout `negatives`: how often a method fires on innocent models, by class, and thresholds judged on other negatives."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

from amb.evaluation.calibration import held_out, rate_threshold, tau_for_negatives
from amb.evaluation.claims import supported_fpr
from amb.evaluation.intervals import rate_over_seeds
from amb.report.entries import list_reasons
from amb.report.tables import Column, Table, TableEntry, estimate
from amb.results import aggregate
from amb.results.aggregate import (
    average_curve,
    by_method,
    by_origin,
    count_origins,
    count_suspects,
    forged,
    group_by,
    highest_rate,
    independent,
    judged,
    positives,
    usable,
)
from amb.results.records import JudgedRecord
from amb.results.result_set import ResultSet

FPRS: Final = (0.01, 0.05, 0.1)
EPSILON: Final = 1e-3
"""Share of trials on innocent models that the calibrated tau lets pass."""


def negatives(results: ResultSet) -> list[Table]:
    """False claims on each class of negatives; calibrated thresholds; calibrated tau."""
    innocents = [cell for cell in results.cells if cell.kind in ("negative", "forged")]
    known, about = judged(results.cells), results.about
    classes = _make_class_rows([*aggregate.negatives(known), *forged(known)])
    return [
        Table(f"Innocent models by class, {about}", _CLASSES, classes, [*_CLASS_NOTES, *list_reasons(innocents)]),
        Table(
            f"Thresholds on R calibrated on negatives, {about}",
            _THRESHOLDS,
            _make_threshold_rows(known),
            _THRESHOLD_NOTES,
        ),
        Table(f"τ calibrated on negatives, {about}", _TAU, _make_tau_rows(known), _TAU_NOTES),
    ]


_CLASSES: Final = [
    Column("method", text=True),
    Column("class", text=True),
    Column("models", priority=2),
    Column("sources", priority=2),
    Column("R(τ)"),
    Column("highest R", priority=2),
    Column("false claims", 2),
]
_CLASS_NOTES: Final = (
    "Models made from one source are alike, so a source counts as one model, however many were made from it.",
    "R(τ): over trials, sources as clusters (Korn and Graubard); false claims: share of models that are claimed, likewise.",
    "forged: an innocent model read with a key that was made up for it; its verdict rests on the same key on other models.",
)


def _make_class_rows(cells: Sequence[JudgedRecord]) -> list[list[TableEntry]]:
    classes = group_by(cells, lambda cell: (cell.method, _name_class(cell)))
    return [[*key, *_make_class_figures(members)] for key, members in sorted(classes.items())]


def _name_class(cell: JudgedRecord) -> str:
    if cell.kind == "forged":
        return f"forged: {cell.attack}"
    return cell.group or ("sibling" if cell.sibling else "independent")


def _make_class_figures(cells: Sequence[JudgedRecord]) -> list[TableEntry]:
    claims = _average_over_origins(cells, lambda cell: float(cell.claim), 1)
    return [count_suspects(cells), count_origins(cells), _average_rate(cells), highest_rate(cells), claims]


def _average_rate(cells: Sequence[JudgedRecord]) -> TableEntry:
    """R over trials, each source as one model."""
    return _average_over_origins(cells, lambda cell: cell.rate, cells[0].verdict.n_trials)


def _average_over_origins(cells: Sequence[JudgedRecord], share: Callable[[JudgedRecord], float], n: int) -> TableEntry:
    """Mean over sources of their mean share; the interval takes a source as a cluster of n draws."""
    means = [sum(map(share, each)) / len(each) for each in by_origin(cells).values()]
    return estimate(rate_over_seeds([mean * n for mean in means], [n] * len(means)))


_THRESHOLDS: Final = [
    Column("method", text=True),
    Column("negatives", text=True),
    Column("n neg.", priority=2),
    Column("sources", priority=2),
    Column("wanted FPR", 2),
    Column("R has to exceed"),
    Column("held-out FPR", 2),
    Column("TPR of usable", 2, priority=2),
    Column("lowest FPR", priority=3),
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


def _make_threshold_rows(cells: Sequence[JudgedRecord]) -> list[list[TableEntry]]:
    rows: list[list[TableEntry]] = []
    for method, members in by_method(cells).items():
        innocents, alone = aggregate.negatives(members), independent(members)
        marked = usable(positives(members))
        for name, chosen in (("independent", alone), ("all", innocents)):
            if chosen and (name == "independent" or len(innocents) > len(alone)):
                rows += [[method, name, *_make_threshold_figures(chosen, marked, fpr)] for fpr in FPRS]
    return rows


def _make_threshold_figures(
    innocents: Sequence[JudgedRecord], marked: Sequence[JudgedRecord], fpr: float
) -> list[TableEntry]:
    """Thresholds are of one key, so of one seed; their errors are pooled by source."""
    seeds = group_by(innocents, lambda cell: cell.seed)
    at = {seed: rate_threshold([cell.rate for cell in each], fpr) for seed, each in seeds.items()}
    lowest = max(supported_fpr(len(each)) for each in seeds.values())
    sizes: list[TableEntry] = [min(map(len, seeds.values())), count_origins(innocents), fpr]
    known = [threshold for threshold in at.values() if threshold is not None]
    if len(known) < len(at):
        return [*sizes, None, None, None, lowest]
    return [*sizes, max(known), _hold_out(seeds.values(), fpr), _find_tpr(marked, at), lowest]


def _hold_out(seeds: Iterable[Sequence[JudgedRecord]], fpr: float) -> TableEntry:
    """False claims on each source by the threshold of all others, pooled over seeds."""
    n_false: dict[str, int] = {}
    n: dict[str, int] = {}
    for cells in seeds:
        rates = {name: [cell.rate for cell in each] for name, each in by_origin(cells).items()}
        for source, judged_by_others in held_out(rates, fpr).items():
            n_false[source] = n_false.get(source, 0) + judged_by_others.n_false
            n[source] = n.get(source, 0) + judged_by_others.n
    shares = [n_false[source] / n[source] for source in n]
    return estimate(rate_over_seeds(shares, [1] * len(shares))) if n else None


def _find_tpr(marked: Sequence[JudgedRecord], at: Mapping[int, float | None]) -> TableEntry:
    """Share of positive suspects above the threshold of their seed."""
    judged_by = [(cell, at.get(cell.seed)) for cell in marked]
    hits = [cell.rate > threshold for cell, threshold in judged_by if threshold is not None]
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


def _make_tau_rows(cells: Sequence[JudgedRecord]) -> list[list[TableEntry]]:
    rows: list[list[TableEntry]] = []
    for method, members in by_method(cells).items():
        for name, chosen in (("independent", independent(members)), ("all", aggregate.negatives(members))):
            if chosen:
                curves = [average_curve(each) for each in by_origin(chosen).values()]
                used = chosen[0].verdict
                least = tau_for_negatives(curves, used.n_trials, EPSILON)
                rows.append([method, name, used.tau, _average_rate(chosen), least])
    return rows
