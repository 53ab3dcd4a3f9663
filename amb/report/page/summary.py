"""The first section of the page: which method, on what evidence, and what to be careful about."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from amb.evaluation.statistics import supported_fpr
from amb.report.entries import count_entry, list_some, rate_entry
from amb.report.figures.subjects import subjects
from amb.report.page.sections import Section
from amb.report.tables import Column, Table, TableEntry, estimate
from amb.results.aggregate import (
    attacked,
    count_claims,
    count_seeds,
    embed_seconds,
    fewest_negatives,
    forged,
    group_by,
    mean,
    mean_seconds,
    negatives,
    positives,
    rank_suspects,
    share_claimed,
    unattacked,
    usable,
)
from amb.results.records import JudgedRecord
from amb.results.result_set import ResultSet

_WANTED_FPR: Final = 0.05
_MOST_NAMED: Final = 5
_COLUMNS: Final = (
    Column("method", text=True),
    Column("seeds"),
    Column("R(τ) unattacked"),
    Column("R(τ) attacked"),
    Column("claimed, of attacked", 2),
    Column("destroyed", text=True),
    Column("false claims", text=True),
    Column("forged claims", text=True),
    Column("negatives"),
    Column("lowest FPR"),
    Column("AUC"),
    Column("embed s", seconds=True),
    Column("extract s", seconds=True),
)
_NOTES: Final = (
    "attacked: positive suspects that an attack made and that are still worth having; destroyed ones are left out.",
    "claimed: p at most the level, exact or by rank among sources of innocent models; Clopper-Pearson over suspects and seeds.",
    "false claims: the same rule on innocent models, siblings included; forged: with a key that was made up for them.",
    "negatives: fewest innocent models that a verdict rests on; lowest FPR: 1 / (n + 1), the least they can support.",
)


def make_summary(results: ResultSet) -> Section:
    """A sentence for each method and each caveat, and the methods side by side."""
    found = subjects(results)
    rows = [[name, *_make_row(cells)] for name, cells in found.items()]
    tables = (Table("Methods side by side", _COLUMNS, rows, _NOTES),) if rows else ()
    points = [*(_describe_method(name, cells) for name, cells in found.items()), *_list_caveats(results, found)]
    return Section("summary", "Summary", (_describe_scope(results), _choose_method(found)), points, tables=tables)


def _make_row(cells: Sequence[JudgedRecord]) -> list[TableEntry]:
    made, innocents, made_up = attacked(cells), negatives(cells), forged(cells)
    kept, fewest = usable(made), fewest_negatives(cells)
    return [
        count_seeds(cells),
        rate_entry(unattacked(cells)),
        rate_entry(kept),
        estimate(share_claimed(kept)),
        count_entry(len(made) - len(kept), made) if made else None,
        count_entry(count_claims(innocents), innocents) if innocents else None,
        count_entry(count_claims(made_up), made_up) if made_up else None,
        fewest,
        supported_fpr(fewest),
        estimate(rank_suspects(usable(positives(cells)), innocents)),
        mean(embed_seconds(cells)),
        mean_seconds(cells, "extract"),
    ]


def _describe_method(name: str, cells: Sequence[JudgedRecord]) -> str:
    """What a method has shown, on how much."""
    kept, innocents = usable(attacked(cells)), negatives(cells)
    claimed = sorted({cell.suspect for cell in innocents if cell.claim})
    who = f": {list_some(claimed, _MOST_NAMED)}" if claimed else ""
    survived = f"claims {count_claims(kept)} of {len(kept)} usable attacked copies" if kept else "was not attacked"
    false = f"raises {count_claims(innocents)} false claims on {len(innocents)} readings of innocent models{who}"
    rests = f"{cells[0].verdict.n_trials} trials and {fewest_negatives(cells)} negatives"
    return f"{name} {survived} and {false}. Its verdicts rest on {rests}."


def _choose_method(found: Mapping[str, Sequence[JudgedRecord]]) -> str:
    """Which method these results speak for, if they speak for one."""
    honest = {name: cells for name, cells in found.items() if negatives(cells) and not count_claims(negatives(cells))}
    shares = {
        name: count_claims(kept) / len(kept) for name, cells in honest.items() if (kept := usable(attacked(cells)))
    }
    if not found:
        return "No cell has a verdict."
    if not shares:
        return "These results speak for no method: each lacks attacks or negatives, or raises false claims."
    most = max(shares.values())
    best = list_some([name for name, share in shares.items() if share == most], _MOST_NAMED)
    lead = f"Methods without a false claim here: {len(honest)} of {len(found)}"
    return f"{lead}. Of those, {best} claims the largest share of usable attacked copies, {most:.2f}."


def _list_caveats(results: ResultSet, found: Mapping[str, Sequence[JudgedRecord]]) -> list[str]:
    cells = results.cells
    statuses = group_by(cells, lambda cell: str(cell.status))
    lines = [
        f"Caution: {len(statuses[name])} of {len(cells)} cells {verb}; they count nowhere."
        for name, verb in (("failed", "failed"), ("skipped", "do not apply and were skipped"))
        if name in statuses
    ]
    fewest = min(map(fewest_negatives, found.values()), default=0)
    if supported_fpr(fewest) > _WANTED_FPR:
        lines.append(
            f"Caution: {fewest} negatives support no false positive rate below {supported_fpr(fewest):.3f}; "
            f"{round(1 / _WANTED_FPR) - 1} are needed for {_WANTED_FPR:g}."
        )
    if count_seeds(cells) == 1:
        lines.append("Caution: one seed; intervals say nothing of another key or training.")
    return lines


def _describe_scope(results: ResultSet) -> str:
    cells, n_runs = results.cells, len(results.runs)
    where = list_some(sorted({cell.place for cell in cells}), _MOST_NAMED)
    sweeps = sorted({run.sweep for run in results.runs if run.sweep})
    named = f", sweep {list_some(sweeps, _MOST_NAMED)}" if sweeps else ""
    return f"{len(cells)} cells of {n_runs} {'run' if n_runs == 1 else 'runs'} of {where or 'no suite'}{named}."
