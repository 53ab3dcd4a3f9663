"""The first section of the page: which method, on what evidence, and what to be careful about."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from amb.report.entries import count_entry, list_some, rate_entry
from amb.report.figures.subjects import subjects
from amb.report.page.outcomes import make_outcomes
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
from amb.results.removals import least_removal, uninformed
from amb.results.result_set import ResultSet
from amb.results.thieves import Thieves
from amb.runtime.wording import count

_WANTED_LEVEL: Final = 0.05
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
    Column("sources"),
    Column("level"),
    Column("AUC"),
    Column("embed s", seconds=True),
    Column("extract s", seconds=True),
)
_NOTES: Final = (
    "attacked: positive suspects that an attack made and that are still worth having; destroyed ones are left out.",
    "claimed: p at most the level, exact or by rank among sources of innocent models; Clopper-Pearson over suspects and seeds.",
    "false claims: the same rule on innocent models, siblings included; forged: with a key that was made up for them.",
    "sources: fewest models that the innocent ones of a verdict were made from; level: how often a claim may be wrong, 1 / (n + 1) by the rank among n sources, or as asked for where the method's null is exact.",
)


def make_summary(results: ResultSet) -> Section:
    """A sentence for each method and each caveat, and the methods side by side."""
    found = subjects(results)
    rows = [[name, *_make_row(cells)] for name, cells in found.items()]
    tables = (_drop_empty(Table("Methods side by side", _COLUMNS, rows, _NOTES)),) if rows else ()
    points = [
        *(_describe_method(name, cells, results.thieves) for name, cells in found.items()),
        *_list_caveats(results, found),
    ]
    texts = (_choose_method(found), _describe_scope(results))
    return Section("summary", "Summary", texts, make_outcomes(results), points, tables=tables)


def _drop_empty(table: Table) -> Table:
    """Without the columns that say nothing, so that the others have room."""
    places = [at for at in range(len(table.columns)) if any(row[at] is not None for row in table.rows)]
    return table.choose(places, len(table.rows))


def _make_row(cells: Sequence[JudgedRecord]) -> list[TableEntry]:
    made, innocents, made_up = attacked(cells), negatives(cells), forged(cells)
    kept = usable(made)
    return [
        count_seeds(cells),
        rate_entry(unattacked(cells)),
        rate_entry(kept),
        estimate(share_claimed(kept)),
        count_entry(len(made) - len(kept), made) if made else None,
        count_entry(count_claims(innocents), innocents) if innocents else None,
        count_entry(count_claims(made_up), made_up) if made_up else None,
        min(cell.verdict.n_sources for cell in _find_claims(cells)),
        max(cell.verdict.level for cell in _find_claims(cells)),
        estimate(rank_suspects(usable(positives(cells)), innocents)),
        mean(embed_seconds(cells)),
        mean_seconds(cells, "extract"),
    ]


def _describe_method(name: str, cells: Sequence[JudgedRecord], thieves: Thieves) -> str:
    """What a method has shown, on how much."""
    kept, innocents = usable(attacked(cells)), negatives(cells)
    claimed = sorted({cell.suspect for cell in innocents if cell.claim})
    who = f": {list_some(claimed, _MOST_NAMED)}" if claimed else ""
    survived = f"claims {count_claims(kept)} of {len(kept)} usable attacked copies" if kept else "was not attacked"
    false = f"raises {count_claims(innocents)} false claims on {len(innocents)} readings of innocent models{who}"
    return f"{name} {survived} and {false}. {_describe_basis(cells)}{_describe_thief(cells, thieves)}"


def _describe_thief(cells: Sequence[JudgedRecord], thieves: Thieves) -> str:
    """What a thief keeps who knows nothing of the method; nothing where none tried."""
    tried = attacked(uninformed(cells, thieves))
    removal = least_removal(cells, thieves)
    if not tried:
        return ""
    if removal is None:
        return " No thief who has the model alone removed its claim and kept the model usable."
    if not attacked(removal.cells):
        return " It does not claim its own model."
    kept = "" if removal.kept is None else f", and keeps {removal.kept:.2f} of the utility"
    return f" A thief who has the model alone removes its claim by {removal.suspect}{kept}."


def _find_claims(cells: Sequence[JudgedRecord]) -> Sequence[JudgedRecord]:
    """The cells whose level counts: those of the positives where there are any, for a sibling has fewer sources beside it."""
    return positives(cells) or cells


def _describe_basis(cells: Sequence[JudgedRecord]) -> str:
    """What the verdicts of a method rest on, and how often a claim may be wrong."""
    trials = count(cells[0].verdict.n_trials, "trial")
    claims = _find_claims(cells)
    level = max(cell.verdict.level for cell in claims)
    if cells[0].verdict.basis == "exact":
        return (
            f"Its verdicts rest on {trials} and an exact null: a claim may be wrong for 1 in {1 / level:,.0f} models."
        )
    sources = count(min(cell.verdict.n_sources for cell in claims), "source")
    negatives_of = f"{count(fewest_negatives(cells), 'negative')} of {sources}"
    return f"Its verdicts rest on {trials} and {negatives_of}: a claim may be wrong for 1 in {1 / level:,.0f} sources of innocent models."


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
    ranked = [
        cell.verdict for each in found.values() for cell in _find_claims(each) if cell.verdict.basis == "calibrated"
    ]
    loosest = max(ranked, key=lambda verdict: verdict.level, default=None)
    if loosest and loosest.level > _WANTED_LEVEL:
        lines.append(
            f"Caution: {count(loosest.n_sources, 'source')} of innocent models support no level below {loosest.level:.3f}; "
            f"{round(1 / _WANTED_LEVEL) - 1} are needed for {_WANTED_LEVEL:g}."
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
