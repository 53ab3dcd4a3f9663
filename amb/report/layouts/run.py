"""Layout `run`: a table for each method of one run, with what its verdicts rest on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from amb.report.layouts.cells import Cell, interval_entry, kind_of, reasons, some, usable, utility_text
from amb.report.tables import Column, Entry, Table


def with_run_tables(document: Mapping[str, Any]) -> dict[str, Any]:
    """The document of a run with a table for each method."""
    run, cells = document["run"], document["cells"]
    tables = [_table(method, [cell for cell in cells if cell["method"] == method], run) for method in run["methods"]]
    return {**document, "tables": [table.to_json() for table in tables]}


def _table(method: str, rows: Sequence[Cell], run: Mapping[str, Any]) -> Table:
    tau = next((cell["tau"] for cell in rows if cell["tau"] is not None), None)
    embedding = next((each for each in run["embeddings"] if each["method"] == method), None)
    return Table(
        title=f"{method} · {run['owner']} · seed {run['seed']}",
        columns=[
            Column("suspect", text=True),
            Column("kind", text=True),
            Column("R(τ)" if tau is None else f"R(τ={tau})"),
            Column("BER"),
            Column("p perm."),
            Column("p calib."),
            Column("verdict", text=True),
            Column("utility"),
            Column("seconds", digits=1),
        ],
        rows=[_row(cell) for cell in rows],
        notes=[*_notes(rows), *_findings(rows), *_embedding_lines(embedding)],
    )


def _row(cell: Cell) -> list[Entry]:
    if cell["status"] != "ok":
        return [cell["suspect"], kind_of(cell), None, None, None, None, cell["status"], None, None]
    return [
        cell["suspect"],
        kind_of(cell),
        interval_entry(cell),
        cell["bit_error_rate"],
        cell["p_values"]["permutation"],
        cell["p_values"]["calibrated"],
        _verdict(cell),
        utility_text(cell["utility"]),
        "cached" if cell["cached"] else cell["seconds"]["attack"] + cell["seconds"]["extract"],
    ]


def _verdict(cell: Cell) -> str:
    if cell["kind"] == "positive":
        return "destroyed" if cell.get("destroyed") else "owned" if cell["owned"] else "missed"
    return "FALSE CLAIM" if cell["owned"] else "not owned"


def _notes(rows: Sequence[Cell]) -> list[str]:
    """What the verdicts rest on, and why a row is missing."""
    lines = reasons(rows)
    judged = [cell for cell in rows if cell["status"] == "ok" and cell["kind"] == "positive"]
    if judged:
        last = judged[-1]
        lines.append(
            f"Rests on {last['n_trials']} trials and {last['n_negatives']} negatives, which can support no false "
            f"positive rate below {last['fpr_supported']:.3f}; owned: R > {last['bound']:.3f} "
            f"(eq. 13 at alpha = {last['alpha']:g}, over all negatives). "
            f"On fair symbols one trial passes tau = {last['tau']} with probability {last['trial_fpr']:.1e}."
        )
    return lines


def _findings(rows: Sequence[Cell]) -> list[str]:
    """The margin over the closest negative: what the choice of negatives decides."""
    negatives = [cell for cell in rows if cell["status"] == "ok" and cell["kind"] == "negative"]
    positives = [cell for cell in rows if cell["status"] == "ok" and cell["kind"] == "positive"]
    if not negatives or not positives:
        return []
    closest = max(negatives, key=lambda cell: cell["detection_rate"])
    weakest = min(positives, key=lambda cell: cell["detection_rate"])
    line = (
        f"Closest negative: {closest['suspect']} with R = {closest['detection_rate']:.3f}; "
        f"margin of the weakest positive ({weakest['suspect']}): {weakest['margin']:+.3f}."
    )
    claimed = [cell["suspect"] for cell in negatives if cell["owned"]]
    forged = [cell["suspect"] for cell in rows if cell["kind"] == "forged" and cell["owned"]]
    return [
        line,
        *_robust(positives),
        *([f"False claims: {some(claimed)}."] if claimed else []),
        *([f"False claims by forged keys: {some(forged)}."] if forged else []),
        *(f"{cell['suspect']}: {_said(facts)}." for cell in rows for facts in (cell.get("report") or {}).values()),
    ]


def _robust(positives: Sequence[Cell]) -> list[str]:
    """Both rates where a suspect was destroyed: over those that are still worth having, and over all."""
    kept = usable(positives)
    if len(kept) == len(positives):
        return []
    owned = [sum(cell["owned"] for cell in each) for each in (kept, positives)]
    lost = some([cell["suspect"] for cell in positives if cell.get("destroyed")])
    rates = f"Owned: {owned[0]} of {len(kept)} usable, {owned[1]} of all {len(positives)} positive suspects."
    return [f"Destroyed, so neither for nor against: {lost}. {rates}"]


def _said(facts: Mapping[str, Any]) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in facts.items())


def _embedding_lines(embedding: Mapping[str, Any] | None) -> list[str]:
    """What embedding cost, what it kept, and what the method says of it."""
    if embedding is None:
        return []
    before, after = embedding["utility_before"], embedding["utility_after"]
    kept = ", ".join(f"{name} {before[name]:.3f} → {after[name]:.3f}" for name in before if name in after)
    alike = ", ".join(f"{name} {value:.3f}" for name, value in embedding["similarity"].items() if value is not None)
    said = ", ".join(
        f"{name.replace('_', ' ')} {value}"
        for name, value in embedding["report"].items()
        if not isinstance(value, dict)
    )
    lines = [f"Embedding: {embedding['seconds']:.1f} s; utility {kept}; clean features {alike}."]
    return [*lines, f"The method says: {said}."] if said else lines
