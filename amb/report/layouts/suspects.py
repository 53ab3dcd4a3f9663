"""Layout `suspects`: how well each method tells positives from negatives, over suspects rather than over trials."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from amb.evaluation.claims import supported_fpr
from amb.evaluation.separation import aruc, auc, tpr_at_fpr
from amb.report.entries import list_reasons
from amb.report.tables import Column, Table, TableEntry, estimate
from amb.results.aggregate import (
    by_method,
    count_origins,
    independent,
    judged,
    negatives,
    positives,
    siblings,
    suspect_rates,
    usable,
)
from amb.results.records import CellRecord
from amb.results.result_set import ResultSet
from amb.runtime.wording import count

FPRS: Final = (0.01, 0.05, 0.1, 0.2)


def suspects(results: ResultSet) -> list[Table]:
    """One row for each method and set of negatives; a suspect's rate is its mean over seeds."""
    rows: list[list[TableEntry]] = []
    for method, cells in by_method(usable(judged(results.cells))).items():
        marked = list(suspect_rates(positives(cells)).values())
        for name, innocents in (("independent", independent(cells)), ("all", negatives(cells))):
            if marked and innocents and (name == "independent" or siblings(cells)):
                rows.append([method, name, *_make_figures(marked, list(suspect_rates(innocents).values()))])
    left_out = [*_count_sources(results.cells), *(f"Left out: {reason}" for reason in list_reasons(results.cells))]
    return [_make_table(rows, f"Telling positive from negative suspects, {results.about}", left_out)]


def _count_sources(cells: Sequence[CellRecord]) -> list[str]:
    n = count_origins(negatives(judged(cells)))
    return [
        f"n neg. counts models; they come from {count(n, 'source')}, and the level of a calibrated claim rests on those."
    ]


_NOTES: Final = (
    "A suspect counts once, with its mean R over seeds. Negatives: `independent` models alone, or `all`, siblings too.",
    "Destroyed suspects, whose utility fell by more than the suite tolerates, are left out.",
    "AUC: Newcombe's interval. ARUC: area under min(robustness, uniqueness) over thresholds; bootstrap over suspects.",
    "TPR at FPR: threshold from the negatives alone, by calibrated p-value; Clopper-Pearson over positive suspects.",
    "lowest FPR: 1 / (n + 1), the least that n negatives can support.",
)


def _make_table(rows: list[list[TableEntry]], title: str, notes: list[str]) -> Table:
    """The table without the rates that no row has negatives enough for; a note says how many they need."""
    columns = [Column("method", text=True), Column("negatives", text=True), Column("n pos.", priority=2)]
    columns += [Column("n neg.", priority=2), Column("AUC"), Column("ARUC", priority=3)]
    columns += [Column("lowest FPR", priority=2), Column("TPR there")]
    n_fixed = len(columns)
    kept = [at for at in range(len(FPRS)) if any(row[n_fixed + at] is not None for row in rows)]
    needs = [f"{round(1 / fpr) - 1} for {fpr:g}" for at, fpr in enumerate(FPRS) if at not in kept]
    missing = [f"Negatives needed for TPR at a fixed FPR: {', '.join(needs)}."] if needs else []
    columns += [Column(f"TPR at FPR {FPRS[at]:g}", priority=3) for at in kept]
    rows = [[*row[:n_fixed], *(row[n_fixed + at] for at in kept)] for row in rows]
    return Table(title, columns, rows, [*_NOTES, *missing, *notes])


def _make_figures(marked: Sequence[float], innocent: Sequence[float]) -> list[TableEntry]:
    lowest = supported_fpr(len(innocent))
    rates = [estimate(tpr_at_fpr(marked, innocent, fpr)) for fpr in (*FPRS, lowest)]
    ranked = [estimate(auc(marked, innocent)), estimate(aruc(marked, innocent))]
    return [len(marked), len(innocent), *ranked, lowest, rates[-1], *rates[:-1]]
