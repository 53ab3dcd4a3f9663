"""The leaderboard: per suite and threat model, methods ranked by how surely they tell stolen models from innocent ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from amb.evaluation.claims import supported_fpr
from amb.evaluation.intervals import Estimate
from amb.report.entries import list_reasons, list_some, rate_entry
from amb.report.tables import Column, Table, TableEntry, estimate
from amb.results.aggregate import (
    average_shares,
    by_method,
    by_origin,
    by_suspect,
    count_claims,
    count_origins,
    count_seeds,
    count_suspects,
    group_by,
    highest_rate,
    judged,
    mean_seconds,
    negatives,
    rank_suspects,
    share_of_suspects_claimed,
    usable,
)
from amb.results.collect import merge_documents, select_suite
from amb.results.records import CellRecord, JudgedRecord
from amb.results.removals import list_removals
from amb.results.result_set import ResultSet, parse_results
from amb.results.run_records import RunRecord
from amb.results.thieves import THREATS
from amb.runtime.wording import count

if TYPE_CHECKING:
    from amb.plugin.registry import Registry

LEAST_SUSPECTS: Final = 5
LEAST_NEGATIVES: Final = 5
LEAST_SOURCES: Final = 3
"""Usable suspects, negatives, and sources that the negatives were made from: with fewer a method is not ranked."""
_MOST_REASONS: Final = 12


def with_leaderboard(
    documents: Mapping[str, Mapping[str, Any]], registry: Registry, suite: str | None = None
) -> dict[str, Any]:
    """One document of all sources' runs and cells, with the tables. Keys are what sources are called.

    A run that is in several sources counts once. Raises BadParamsError for a suite that there is none of.
    """
    document = merge_documents(documents)
    if suite is not None:
        document = select_suite(document, suite)
    results = parse_results(document, registry.describe_attack)
    tables = [table for part in results.split_owners() for table in _make_tables(part)]
    tables.append(_make_source_table(results, document["sources"]))
    return {**document, "tables": [table.to_json() for table in tables]}


def _make_tables(results: ResultSet) -> list[Table]:
    """A table for each threat model of which there are cells, weakest first."""
    about = results.about
    innocents = by_method(negatives(results.cells))
    claims = [cell for cell in results.cells if cell.kind != "negative"]
    found = group_by(claims, results.thieves.threat)
    threats = {name: found[name] for name in THREATS if name in found}
    ranked = [
        _make_forgery_table(about, cells) if name == "forgery" else _make_threat_table(name, about, cells, innocents)
        for name, cells in threats.items()
    ]
    return [*ranked, _make_family_table(about, threats)]


# Stolen models


_COLUMNS: Final = [
    Column("rank"),
    Column("method", text=True),
    Column("usable", priority=2),
    Column("destroyed", priority=3),
    Column("no verdict", priority=3),
    Column("AUC", 2, priority=2),
    Column("claimed, of usable", 2),
    Column("R(τ) of usable", priority=3),
    Column("thief keeps", 2, priority=2),
    Column("highest innocent R", priority=3),
    Column("false claims", 2),
    Column("negatives", priority=2),
    Column("sources", priority=2),
    Column("lowest FPR", priority=2),
    Column("seeds", priority=3),
    Column("embed s", seconds=True, priority=3),
    Column("extract s", seconds=True, priority=3),
]
_NOTES: Final = (
    "rank: one more than the methods whose interval of AUC lies wholly above; in order of its lower end.",
    "AUC: a suspect counts once, with its mean R over seeds, against all negatives, siblings too; Newcombe's interval.",
    f"Not ranked: fewer than {LEAST_SUSPECTS} usable suspects, {LEAST_NEGATIVES} negatives, or {LEAST_SOURCES} sources of negatives.",
    "usable, destroyed, no verdict: suspects that kept their utility, that lost it, that were skipped or failed.",
    "claimed and false claims: share of suspects and of negatives with p at most the level; Clopper-Pearson at as many draws as there are models.",
    "thief keeps: share of the protected model's utility after the attack of this table that removes the claim and keeps most of it; – where none does.",
    "lowest FPR: 1 / (n + 1), the least that the rank among n sources of innocent models can support; an exact null needs none.",
)


_CONTROL: Final = "The control is one model, so no method is ranked by it."


def _make_threat_table(
    threat: str, about: str, cells: Sequence[CellRecord], innocents: Mapping[str, Sequence[CellRecord]]
) -> Table:
    contenders = [
        _make_contender(name, each, judged(innocents.get(name, []))) for name, each in by_method(cells).items()
    ]
    ranked = _rank_rows(contenders)
    title = f"{threat.capitalize()}: {THREATS[threat]}; {about}"
    said = [_CONTROL] if threat == "unattacked" else _say_who_is_ranked(contenders, ranked)
    return Table(title, _COLUMNS, ranked, _make_notes(_NOTES, cells), said)


def _make_notes(first: Sequence[str], cells: Sequence[CellRecord]) -> list[str]:
    return [*first, *_list_spared(by_method(cells)), *_cut_reasons(list_reasons(cells))]


def _make_contender(method: str, cells: Sequence[CellRecord], innocents: Sequence[JudgedRecord]) -> _Contender:
    known = judged(cells)
    kept = usable(known)
    n_kept, n_known, n_all = map(count_suspects, (kept, known, cells))
    n_innocents, n_origins = count_suspects(innocents), count_origins(innocents)
    area = rank_suspects(kept, innocents)
    entries: list[TableEntry] = [
        n_kept,
        n_known - n_kept,
        n_all - n_known,
        estimate(area),
        estimate(share_of_suspects_claimed(kept)),
        rate_entry(kept),
        removals[0].kept if (removals := list_removals(cells)) else None,
        highest_rate(innocents),
        estimate(share_of_suspects_claimed(innocents)),
        n_innocents,
        n_origins,
        supported_fpr(n_origins) if n_origins else None,
        count_seeds(known),
        mean_seconds(known, "embed"),
        mean_seconds(known, "extract"),
    ]
    has = {"usable suspect": n_kept, "negative": n_innocents, "source": n_origins}
    return _Contender(method, _list_missing(has), area, entries)


def _list_missing(has: Mapping[str, int]) -> list[str]:
    """What a rank needs beside what there is, such as `3 more sources`."""
    needs = {"usable suspect": LEAST_SUSPECTS, "negative": LEAST_NEGATIVES, "source": LEAST_SOURCES}
    return [count(needs[thing] - n, f"more {thing}") for thing, n in has.items() if n < needs[thing]]


_FAMILY_COLUMNS: Final = [
    Column("threat model", text=True),
    Column("family", text=True),
    Column("method", text=True),
    Column("suspects", priority=2),
    Column("destroyed", priority=3),
    Column("no verdict", priority=3),
    Column("claimed, of usable", 2),
    Column("R(τ) of usable", priority=2),
]


def _make_family_table(about: str, threats: Mapping[str, Sequence[CellRecord]]) -> Table:
    """What the ranks are made of: every family of attacks, not ranked."""
    rows: list[list[TableEntry]] = []
    for threat, cells in threats.items():
        families = group_by(cells, lambda cell: (cell.family or "none", cell.method))
        rows += [[threat, *key, *_make_family_figures(members)] for key, members in sorted(families.items())]
    notes = ["claimed, of usable: on forged keys that is a false claim. Intervals as above, over suspects."]
    return Table(f"By family of attacks; {about}", _FAMILY_COLUMNS, rows, notes)


def _make_family_figures(cells: Sequence[CellRecord]) -> list[TableEntry]:
    known = judged(cells)
    kept = usable(known)
    n_kept, n_known, n_all = map(count_suspects, (kept, known, cells))
    return [n_all, n_known - n_kept, n_all - n_known, estimate(share_of_suspects_claimed(kept)), rate_entry(kept)]


# Forged keys


_FORGERY_COLUMNS: Final = [
    Column("rank"),
    Column("method", text=True),
    Column("claims", priority=2),
    Column("no verdict", priority=3),
    Column("false claims", 2),
    Column("R(τ) of forged", priority=2),
    Column("highest R", priority=2),
    Column("models", priority=3),
    Column("sources", priority=2),
    Column("seeds", priority=3),
]
_FORGERY_NOTES: Final = (
    "rank: one more than the methods whose interval of false claims lies wholly below; in order of its upper end.",
    "false claims: share of innocent models that a made-up key claims; a source's models count once.",
    f"Not ranked: fewer than {LEAST_SOURCES} sources of innocent models.",
)


def _make_forgery_table(about: str, cells: Sequence[CellRecord]) -> Table:
    contenders = [_make_forgery_contender(*each) for each in by_method(cells).items()]
    rows, notes = _rank_rows(contenders, lowest_first=True), _make_notes(_FORGERY_NOTES, cells)
    title = f"Forgery: {THREATS['forgery']}; {about}"
    return Table(title, _FORGERY_COLUMNS, rows, notes, _say_who_is_ranked(contenders, rows))


def _make_forgery_contender(method: str, cells: Sequence[CellRecord]) -> _Contender:
    known = judged(cells)
    origins = by_origin(known)
    claims = average_shares([count_claims(each) / len(each) for each in origins.values()])
    entries: list[TableEntry] = [
        len(known),
        len(cells) - len(known),
        estimate(claims),
        rate_entry(known),
        highest_rate(known),
        len({cell.digests.get("model") for cell in known}),
        len(origins),
        count_seeds(known),
    ]
    return _Contender(method, _list_missing({"source": len(origins)}), claims, entries)


# Ranks


@dataclass(frozen=True)
class _Contender:
    """A method that may be ranked."""

    method: str
    missing: Sequence[str]
    """What a rank needs beside what there is; nothing where there is evidence enough."""
    figure: Estimate | None
    """What it is ranked by."""
    entries: Sequence[TableEntry]
    """What stands behind its rank and its name."""

    def find_ends(self, sign: int) -> tuple[float, float]:
        """The worst and the best that the figure allows, larger being better."""
        if self.figure is None:
            return float("-inf"), float("inf")
        low, high = sorted((sign * self.figure.low, sign * self.figure.high))
        return low, high


def _rank_rows(contenders: Sequence[_Contender], *, lowest_first: bool = False) -> list[list[TableEntry]]:
    """A row for each method in order: those with enough evidence ranked, then the others."""
    ends = {each.method: each.find_ends(-1 if lowest_first else 1) for each in contenders}
    good = [each.method for each in contenders if not each.missing]
    good = good if len(good) > 1 else []  # the first of one is no rank
    ranks = {name: 1 + sum(ends[other][0] > ends[name][1] for other in good) for name in good}
    last = len(contenders) + 1
    ordered = sorted(contenders, key=lambda each: (ranks.get(each.method, last), -ends[each.method][0], each.method))
    return [[ranks.get(each.method), each.method, *each.entries] for each in ordered]


def _say_who_is_ranked(contenders: Sequence[_Contender], rows: Sequence[Sequence[TableEntry]]) -> list[str]:
    """Who has no rank and what is missing, and where ranks say nothing."""
    ranks = [row[0] for row in rows]
    wanting = [f"{each.method} needs {' and '.join(each.missing)}" for each in contenders if each.missing]
    missing = f"{list_some(wanting, _MOST_WANTING)}." if wanting else "There is no other method."
    if not any(ranks):
        return [f"No method is ranked: fewer than two have evidence enough. {missing}"]
    lines = [f"Not ranked for want of evidence: {missing}"] if wanting else []
    ranked = [rank for rank in ranks if rank]
    shared = len(ranked) > 1 and len(set(ranked)) == 1
    return [*lines, "All ranked methods share one rank: their intervals overlap."] if shared else lines


_MOST_WANTING: Final = 12
"""Methods of which it is said what they need."""


def _list_spared(methods: Mapping[str, Sequence[CellRecord]]) -> list[str]:
    """A method that was spared some suspects is not compared on equal terms."""
    judged_on = {name: set(by_suspect(judged(cells))) for name, cells in methods.items()}
    every = set().union(*judged_on.values())
    return [
        f"{name} has no verdict on {len(every - own)} of {len(every)} suspects that others were judged on."
        for name, own in judged_on.items()
        if every - own
    ]


# What the tables rest on


_SOURCE_COLUMNS: Final = (
    Column("run", text=True),
    Column("from", text=True),
    Column("suite", text=True, priority=2),
    Column("owner", text=True, priority=3),
    Column("sweep", text=True, priority=3),
    Column("seed", priority=2),
    Column("cells", priority=2),
    Column("trials", priority=3),
    Column("started", text=True, priority=3),
    Column("amb", text=True, priority=3),
    Column("torch", text=True, priority=3),
    Column("machine", text=True, priority=3),
)


def _make_source_table(results: ResultSet, sources: Mapping[str, Sequence[str]]) -> Table:
    cells = group_by(results.cells, lambda cell: cell.run)
    rows = [_make_source_row(run, cells.get(run.id, []), sources[run.id]) for run in results.runs]
    notes = ["cells: those that count here; where several runs judged a cell, the latest does."]
    return Table("Runs behind it", _SOURCE_COLUMNS, rows, notes)


def _make_source_row(run: RunRecord, cells: Sequence[CellRecord], sources: Sequence[str]) -> list[TableEntry]:
    return [
        run.id,
        ", ".join(sources),
        run.suite,
        run.owner,
        run.sweep,
        run.seed,
        len(cells),
        max((cell.verdict.n_trials for cell in judged(cells)), default=None),
        run.started,
        run.versions.get("amb"),
        run.versions.get("torch"),
        f"{run.machine.architecture}, {run.machine.cpus} CPUs, {run.device}",
    ]


def _cut_reasons(lines: Sequence[str]) -> list[str]:
    more = len(lines) - _MOST_REASONS
    return [*lines[:_MOST_REASONS], *([f"And {more} more without a verdict."] if more > 0 else [])]
