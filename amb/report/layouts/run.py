"""Layout `run`: a table for each method of one run, with what its verdicts rest on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from amb.api.records import Verdict
from amb.evaluation.bounds import least_bound
from amb.report.entries import interval_entry, list_reasons, list_some, utility_text
from amb.report.tables import Column, Table, TableEntry
from amb.results.aggregate import count_claims, forged, judged, negatives, positives, usable
from amb.results.records import CellRecord, JudgedRecord
from amb.results.result_set import ResultSet, parse_results
from amb.results.run_records import EmbeddingRecord, RunRecord
from amb.runtime.wording import count


def with_run_tables(document: Mapping[str, Any]) -> dict[str, Any]:
    """The document of a run with a table for each method."""
    return {**document, "tables": [table.to_json() for table in make_run_tables(parse_results(document))]}


def make_run_tables(results: ResultSet) -> list[Table]:
    """A table for each run and method."""
    return [
        _make_table(method, [cell for cell in results.cells if (cell.run, cell.method) == (run.id, method)], run)
        for run in results.runs
        for method in run.methods
    ]


def _make_table(method: str, cells: Sequence[CellRecord], run: RunRecord) -> Table:
    known = judged(cells)
    embedding = next((each for each in run.embeddings if each.method == method), None)
    return Table(
        title=f"{method} · {run.owner} · seed {run.seed}",
        columns=[
            Column("suspect", text=True),
            Column("kind", text=True, priority=2),
            Column(f"R(τ={known[0].verdict.tau})" if known else "R(τ)"),
            Column("BER", priority=3),
            Column("p"),
            Column("p perm.", priority=3),
            Column("verdict", text=True),
            Column("utility", priority=2),
            Column("seconds", seconds=True, priority=3),
        ],
        rows=[_make_row(cell) for cell in cells],
        findings=_list_headlines(known),
        notes=[
            *list_reasons(cells),
            *_explain_verdicts(positives(known)),
            *_list_findings(known),
            *(_describe_embedding(embedding) if embedding else ()),
        ],
    )


def _make_row(cell: CellRecord) -> list[TableEntry]:
    if not isinstance(cell, JudgedRecord):
        return [cell.suspect, cell.shown_kind, None, None, None, None, cell.status, None, None]
    return [
        cell.suspect,
        cell.shown_kind,
        interval_entry(cell),
        cell.verdict.bit_error_rate,
        cell.verdict.p_value,
        cell.verdict.p_values["permutation"],
        _describe_verdict(cell),
        utility_text(cell.utility),
        "cached" if cell.cached else (cell.seconds["attack"] or 0.0) + (cell.seconds["extract"] or 0.0),
    ]


def _describe_verdict(cell: JudgedRecord) -> str:
    if cell.kind == "positive":
        return "destroyed" if cell.destroyed else "claim" if cell.claim else "missed"
    return "FALSE CLAIM" if cell.claim else "no claim"


def _list_headlines(known: Sequence[JudgedRecord]) -> list[str]:
    """A plain sentence for each thing that a reader asks first: what was claimed, rightly and falsely, and how sure that is."""
    marked, innocents, made_up = positives(known), negatives(known), forged(known)
    kept = usable(marked)
    missed = [cell.suspect for cell in kept if not cell.claim]
    but = f"; missed: {list_some(missed)}" if missed else ""
    lines = (
        [f"Claimed: {count_claims(kept)} of {count(len(kept), 'model')} made from the protected one{but}."]
        if kept
        else []
    )
    lines += _list_false_claims("Claimed falsely", innocents, "")
    lines += _list_false_claims("Claimed with forged keys", made_up, " with a key that was made up for them")
    return [*lines, _say_how_sure(marked[-1].verdict)] if marked else lines


def _list_false_claims(label: str, innocents: Sequence[JudgedRecord], how: str) -> list[str]:
    claimed = [cell.suspect for cell in innocents if cell.claim]
    if not innocents:
        return []
    n = count(len(innocents), "innocent model")
    return [f"{label}: {len(claimed)} of {n}{how}: {list_some(claimed)}." if claimed else f"{label}: none of {n}{how}."]


def _say_how_sure(verdict: Verdict) -> str:
    """How often a claim may be wrong, and of what."""
    if verdict.basis == "exact":
        return f"A claim may be wrong for 1 in {1 / verdict.level:,.0f} models that were made without the key."
    if not verdict.n_sources:
        return "Nothing can be claimed: no innocent model was read."
    n = count(verdict.n_sources, "source")
    return (
        f"A claim may be wrong for 1 in {1 / verdict.level:,.0f} sources of innocent models: the {n} here support no "
        "smaller level."
    )


def _explain_verdicts(marked: Sequence[JudgedRecord]) -> list[str]:
    """What the verdicts rest on."""
    if not marked:
        return []
    last = marked[-1].verdict
    by_the_paper = [cell.suspect for cell in marked if cell.verdict.paper_rule]
    return [
        _explain_claim(last),
        (
            f"The paper's rule, which is no test of a model: R > {last.bound:.3f} (eq. 13 at alpha = {last.alpha:g}, over "
            f"{count(last.n_negatives, 'negative')}); it takes {len(by_the_paper)} of {count(len(marked), 'positive suspect')}. "
            f"{_say_what_bound_allows(last)}On fair symbols one trial passes tau = {last.tau} with probability {last.trial_fpr:.1e}."
        ),
    ]


def _say_what_bound_allows(verdict: Verdict) -> str:
    """Where the number of negatives decides over the bound of eq. 13, and not what was read: that; else nothing."""
    n, n_symbols = verdict.n_negatives, len(verdict.curve) - 1
    if not n:
        return "Without negatives it can claim nothing, whatever a suspect reads. "
    least = least_bound(n, verdict.n_trials, n_symbols, verdict.tau, verdict.alpha)
    stuck = "No R exceeds that, so it can claim nothing here, whatever a suspect reads. " if verdict.bound >= 1 else ""
    if least < _MUCH:
        return stuck
    return f"{stuck}So few negatives alone put the bound at {least:.3f} or more, even if none of them read anything. "


_MUCH: Final = 0.05
"""A bound that is worth a word."""


def _explain_claim(verdict: Verdict) -> str:
    """What p is, and at which level it claims."""
    if verdict.basis == "exact":
        n_symbols = verdict.n_trials * (len(verdict.curve) - 1)
        return (
            f"Claim: p ≤ {verdict.level:g}. p is exact, the binomial over {count(n_symbols, 'symbol')}: each is a fair draw "
            "on any model that was made without the key."
        )
    return (
        f"Claim: p ≤ {verdict.level:.3f}, the smallest level that {count(verdict.n_sources, 'source')} of innocent models "
        f"support. p is calibrated, the rank of R among the sources, each by the largest R of its models; it rests on "
        f"{count(verdict.n_trials, 'trial')}."
    )


def _list_findings(cells: Sequence[JudgedRecord]) -> list[str]:
    """The margin over the closest negative, which the choice of negatives decides; what attacks report."""
    innocents, marked = negatives(cells), positives(cells)
    if not innocents or not marked:
        return []
    closest = max(innocents, key=lambda cell: cell.rate)
    weakest = min(marked, key=lambda cell: cell.rate)
    margin = f"margin of the weakest positive ({weakest.suspect}): {weakest.verdict.margin:+.3f}"
    return [
        f"Closest negative: {closest.suspect} with R = {closest.rate:.3f}; {margin}.",
        *_list_destroyed(marked),
        *(f"{cell.suspect}: {_list_facts(facts)}." for cell in cells for facts in cell.report.values()),
    ]


def _list_destroyed(marked: Sequence[JudgedRecord]) -> list[str]:
    """Both rates where a suspect was destroyed: over those that are still worth having, and over all."""
    kept = usable(marked)
    if len(kept) == len(marked):
        return []
    lost = list_some([cell.suspect for cell in marked if cell.destroyed])
    rates = (
        f"{count_claims(kept)} of {len(kept)} usable, {count_claims(marked)} of all {len(marked)} positive suspects."
    )
    return [f"Destroyed, so neither for nor against: {lost}. Claimed: {rates}"]


def _describe_embedding(embedding: EmbeddingRecord) -> list[str]:
    """What embedding cost, what it kept, and what the method says of it."""
    before, after = embedding.utility_before, embedding.utility_after
    kept = ", ".join(f"{name} {before[name]:.3f} → {after[name]:.3f}" for name in before if name in after)
    alike = ", ".join(f"{name} {value:.3f}" for name, value in embedding.similarity.items() if value is not None)
    said = _list_facts({name: value for name, value in embedding.report.items() if not isinstance(value, dict)})
    took = "unknown time" if embedding.seconds is None else f"{embedding.seconds:.1f} s"
    lines = [f"Embedding: {took}; utility {kept}; clean features {alike}."]
    return [*lines, f"The method says: {said}."] if said else lines


def _list_facts(facts: Mapping[str, Any]) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in facts.items())
