"""Layout `robustness`: which methods survive which attacks, over suspects that are still worth having."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from amb.evaluation.primary_utility import primary_utility
from amb.report.entries import count_entry, list_reasons, rate_entry
from amb.report.tables import Column, Table, TableEntry, estimate
from amb.results.aggregate import (
    attacked,
    average_over_seeds,
    by_method,
    by_suspect,
    count_claims,
    group_by,
    judged,
    mean,
    mean_seconds,
    positives,
    share_claimed,
    share_of,
    usable,
)
from amb.results.records import CellRecord, JudgedRecord
from amb.results.removals import Removal, list_removals, uninformed
from amb.results.result_set import ResultSet
from amb.runtime.wording import count

_NOTES: Final = (
    "destroyed: lost more of its utility than the suite tolerates, so it counts neither for nor against robustness.",
    "claimed, of usable and of all: p at most the level, exact or by rank among sources of innocent models; the interval is Clopper-Pearson over suspects.",
    "above innocents: R exceeds that of every negative that was read, siblings included; what a calibrated p-value needs.",
)
_FAMILIES: Final = (
    Column("method", text=True),
    Column("family", text=True),
    Column("cells", priority=2),
    Column("destroyed", priority=2),
    Column("R(τ) of usable"),
    Column("claimed, of usable", 2),
    Column("claimed, of all", 2, priority=3),
    Column("above innocents, of usable", 2, priority=3),
)
_ATTACKS: Final = (
    Column("method", text=True),
    Column("attack", text=True),
    Column("seeds", priority=3),
    Column("R(τ)"),
    Column("claimed", text=True),
    Column("utility", priority=2),
    Column("lost", priority=2),
    Column("destroyed", text=True, priority=2),
    Column("attack s", seconds=True, priority=3),
)
_UNINFORMED: Final = (
    Column("method", text=True),
    Column("attack", text=True),
    Column("utility kept"),
    Column("claimed", text=True),
    Column("R(τ)", priority=2),
    Column("attack s", seconds=True, priority=3),
    Column("removing", text=True, priority=2),
)
_UNINFORMED_NOTES: Final = (
    "The thief has the model alone. Of the attacks that remove the claim, with a model left that is not destroyed, this is the one that keeps most of its utility.",
    "utility kept: share of the protected model's, Student's interval over seeds. removing: of the attacks that were tried, those after which fewer than half of the usable models are claimed.",
)


def robustness(results: ResultSet) -> list[Table]:
    """One table of rates for each method and family of attacks, one of every attack."""
    cells = positives(results.cells)
    known, about = judged(cells), results.about
    families = group_by(known, lambda cell: (cell.method, cell.family or "unattacked"))
    rows = [[*key, *_make_family_figures(members)] for key, members in families.items()]
    rows += [
        [method, "all attacks", *_make_family_figures(each)] for method, each in by_method(attacked(known)).items()
    ]
    attacks = group_by(known, lambda cell: (cell.method, cell.suspect))
    details = [[*key, *_make_attack_figures(members)] for key, members in attacks.items()]
    return [
        Table(f"Robustness by family of attacks, {about}", _FAMILIES, rows, [*_NOTES, *list_reasons(cells)]),
        Table(f"Every attack, {about}", _ATTACKS, details, ["lost: share of the protected model's utility."]),
        *make_uninformed_tables(results),
    ]


def make_uninformed_tables(results: ResultSet) -> list[Table]:
    """What a thief keeps who knows nothing of the methods, by method; no table where none was attacked so."""
    tried = {
        name: cells
        for name, cells in by_method(uninformed(results.cells, results.thieves)).items()
        if attacked(judged(cells))
    }
    if not tried:
        return []
    found = {name: list_removals(cells) for name, cells in tried.items()}
    rows = [[name, *_make_removal_figures(removals, tried[name])] for name, removals in found.items()]
    said = [_say_removal(name, removals, tried[name]) for name, removals in found.items()]
    title = f"Without knowing the method: what the thief keeps, {results.about}"
    return [Table(title, _UNINFORMED, rows, _UNINFORMED_NOTES, said)]


def _make_removal_figures(removals: Sequence[Removal], cells: Sequence[CellRecord]) -> list[TableEntry]:
    n_removing = sum(removal.cells[0].is_attacked for removal in removals)
    removing = f"{n_removing} of {len(by_suspect(attacked(judged(cells))))}"
    if not removals:
        return [None, None, None, None, None, removing]
    best = removals[0]
    claimed = count_entry(count_claims(best.cells), best.cells)
    kept = estimate(best.kept_over_seeds)
    return [best.suspect, kept, claimed, rate_entry(best.cells), mean_seconds(best.cells, "attack"), removing]


def _say_removal(method: str, removals: Sequence[Removal], cells: Sequence[CellRecord]) -> str:
    if not removals:
        n = count(len(by_suspect(attacked(judged(cells)))), "attack")
        return f"{method}: none of {n} by a thief who has the model alone removed the claim and left the model usable."
    best = removals[0]
    if not best.cells[0].is_attacked:
        return f"{method}: its own model is not claimed, so there is nothing to remove."
    kept = "an unknown share" if best.kept is None else f"{best.kept:.3f}"
    return f"{method}: {best.suspect} removes the claim and keeps {kept} of the utility."


def _make_family_figures(cells: Sequence[JudgedRecord]) -> list[TableEntry]:
    kept = usable(cells)
    return [
        len(cells),
        len(cells) - len(kept),
        rate_entry(kept),
        estimate(share_claimed(kept)),
        estimate(share_claimed(cells)),
        estimate(share_of(kept, _is_above_innocents)),
    ]


def _make_attack_figures(cells: Sequence[JudgedRecord]) -> list[TableEntry]:
    lost = average_over_seeds(round(cell.utility_drop, 3) for cell in cells if cell.utility_drop is not None)
    return [
        len(cells),
        rate_entry(cells),
        count_entry(count_claims(cells), cells),
        _describe_utility(cells),
        lost.value if lost else None,
        count_entry(len(cells) - len(usable(cells)), cells),
        mean_seconds(cells, "attack"),
    ]


def _describe_utility(cells: Sequence[JudgedRecord]) -> str | None:
    found = [figure for cell in cells if (figure := primary_utility(cell.utility))]
    return f"{found[0][0]} {mean(value for _, value in found):.3f}" if found else None


def _is_above_innocents(cell: JudgedRecord) -> bool:
    return cell.verdict.margin is not None and cell.verdict.margin > 0
