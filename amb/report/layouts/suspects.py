"""Layout `suspects`: how well each method tells positives from negatives, over suspects rather than over trials."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from amb.evaluation.statistics import aruc, auc, supported_fpr, tpr_at_fpr
from amb.report.layouts.cells import Cell, group, judged, reasons, usable
from amb.report.tables import Column, Entry, Table, estimate

FPRS: Final = (0.01, 0.05, 0.1, 0.2)


def suspects(document: Mapping[str, Any]) -> list[Table]:
    """One row for each method and set of negatives; a suspect's rate is its mean over seeds."""
    rows: list[list[Entry]] = []
    for method, cells in group(usable(judged(document["cells"])), lambda cell: str(cell["method"])).items():
        for name, negatives in (("independent", _rates(cells, "negative", False)), ("all", _rates(cells, "negative"))):
            positives = _rates(cells, "positive")
            if positives and negatives and not (name == "all" and not _rates(cells, "negative", True)):
                rows.append([method, name, *_figures(positives, negatives)])
    left_out = [f"Left out: {reason}" for reason in reasons(document["cells"])]
    return [_supported(rows, f"Telling positive from negative suspects, {document['about']}", left_out)]


_NOTES: Final = (
    "A suspect counts once, with its mean R over seeds. Negatives: `independent` models alone, or `all`, siblings too.",
    "Destroyed suspects, whose utility fell by more than the suite tolerates, are left out.",
    "AUC: Newcombe's interval. ARUC: area under min(robustness, uniqueness) over thresholds; bootstrap over suspects.",
    "TPR at FPR: threshold from the negatives alone, by calibrated p-value; Clopper-Pearson over positive suspects.",
    "lowest FPR: 1 / (n + 1), the least that n negatives can support.",
)


def _supported(rows: list[list[Entry]], title: str, notes: list[str]) -> Table:
    """The table without the rates that no row has negatives enough for; a note says how many they need."""
    columns = [Column("method", text=True), Column("negatives", text=True), Column("n pos."), Column("n neg.")]
    columns += [Column("AUC"), Column("ARUC"), Column("lowest FPR"), Column("TPR there")]
    n_fixed = len(columns)
    kept = [at for at in range(len(FPRS)) if any(row[n_fixed + at] is not None for row in rows)]
    needs = [f"{round(1 / fpr) - 1} for {fpr:g}" for at, fpr in enumerate(FPRS) if at not in kept]
    missing = [f"Negatives needed for TPR at a fixed FPR: {', '.join(needs)}."] if needs else []
    columns += [Column(f"TPR at FPR {FPRS[at]:g}") for at in kept]
    rows = [[*row[:n_fixed], *(row[n_fixed + at] for at in kept)] for row in rows]
    return Table(title, columns, rows, [*_NOTES, *missing, *notes])


def _figures(positives: Sequence[float], negatives: Sequence[float]) -> list[Entry]:
    lowest = supported_fpr(len(negatives))
    rates = [tpr_at_fpr(positives, negatives, fpr) for fpr in (*FPRS, lowest)]
    entries: list[Entry] = [estimate(rate) if rate else None for rate in rates]
    ranked = [estimate(auc(positives, negatives)), estimate(aruc(positives, negatives))]
    return [len(positives), len(negatives), *ranked, lowest, entries[-1], *entries[:-1]]


def _rates(cells: Sequence[Cell], kind: str, sibling: bool | None = None) -> list[float]:
    """Mean R over seeds of each suspect of a kind."""
    wanted = [cell for cell in cells if cell["kind"] == kind and sibling in (None, cell["sibling"])]
    by_suspect = group(wanted, lambda cell: str(cell["suspect"]))
    return [sum(cell["detection_rate"] for cell in each) / len(each) for each in by_suspect.values()]
