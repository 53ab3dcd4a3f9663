"""Layouts `paper-...`: the tables of the ActiveMark paper and the figures behind its figures."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from amb.report.entries import list_reasons, list_statuses, rate_entry
from amb.report.tables import Column, Table, TableEntry, estimate
from amb.results.aggregate import (
    attacked,
    average_over_seeds,
    by_method,
    by_suspect,
    group_by,
    judged,
    positives,
    unattacked,
)
from amb.results.records import CellRecord, JudgedRecord, ShownKind
from amb.results.result_set import ResultSet
from amb.results.run_records import ProfileRecord, RunRecord, largest_fall

_KINDS: Final = ("positive", "negative", "sibling", "forged")
_TAUS: Final = (0, 1, 2, 3, 4, 5, 6, 8, 10, 12, 16)
_SEEDS_NOTE: Final = "Mean over seeds {seeds}; interval of Korn and Graubard over trials in seeds, 95 %."


def table1(results: ResultSet) -> list[Table]:
    """Block ablation: the message read at once, and after each attack."""
    cells = positives(results.cells)
    attacks = list(by_suspect(attacked(cells)))
    columns = [Column("method", text=True), Column("R(0)")]
    columns += [Column("R(4)", priority=2), Column("avg. error", 2, priority=2)]
    columns += [Column(f"{attack}: R(τ)", priority=2) for attack in attacks]
    rows: list[list[TableEntry]] = []
    for method, members in by_method(cells).items():
        own = unattacked(judged(members))
        wrong = average_over_seeds(cell.verdict.bit_error_rate * (len(cell.verdict.curve) - 1) for cell in own)
        after = [rate_entry(each for each in members if each.suspect == name) for name in attacks]
        rows.append([method, rate_entry(own, 0), rate_entry(own, 4), estimate(wrong), *after])
    notes = [*_name_seeds(cells), "avg. error: wrong symbols a trial on the embedded model.", *list_reasons(cells)]
    return [Table(f"Table 1: where the message is written, {results.about}", columns, rows, notes)]


def table2(results: ResultSet) -> list[Table]:
    """R of every suspect, a column for each method."""
    cells = results.cells
    methods = list(by_method(cells))
    columns = [Column("model type", text=True, priority=3), Column("experiment", text=True)]
    columns += [Column(name, priority=2) for name in methods]
    rows: list[list[TableEntry]] = []
    for (kind, suspect), members in _sort_suspects(cells):
        found = by_method(members)
        rows.append([kind, suspect, *(_make_rate_or_status(found.get(method, [])) for method in methods)])
    taus = {cell.method: cell.verdict.tau for cell in judged(cells)}
    said = "; ".join(f"{method}: τ = {tau}" for method, tau in taus.items())
    notes = [*_name_seeds(cells), f"{said}.", *list_reasons(cells)]
    return [Table(f"Table 2: detection rate R(τ), {results.about}", columns, rows, notes)]


def table3(results: ResultSet) -> list[Table]:
    """What embedding and extraction take, as measured when they were computed."""
    columns = [Column("method", text=True), Column("embed s", seconds=True), Column("extract s", seconds=True)]
    columns += [Column("extract ms a trial", 2, priority=2), Column("trials", priority=3)]
    columns += [Column("utility fall", 4, priority=2)]
    cells = judged(results.cells)
    rows = [
        [method, *_make_times(unattacked(each)), largest_fall(results.runs, method)]
        for method, each in by_method(cells).items()
    ]
    machines = sorted({_describe_machine(run) for run in results.runs})
    notes = ["Mean over seeds with Student's interval, 95 %.", *(f"Measured on {machine}." for machine in machines)]
    old = sum(cell.cached for cell in cells)
    if old:
        notes.append(
            f"{old} of {len(cells)} cells were timed by an earlier run, perhaps beside others. "
            "A fresh --output-dir times all of them."
        )
    notes.append("utility fall: largest fall of any utility figure by embedding, over seeds.")
    return [Table(f"Table 3: time, {results.about}", columns, rows, notes)]


def figure2(results: ResultSet) -> list[Table]:
    """The activation profile of each owner: the figures behind the paper's Fig. 2."""
    profiles = [run.profile for run in results.runs if run.profile]
    return [_make_profile_table(results.about, profiles[-1])] if profiles else []


def figure3(results: ResultSet) -> list[Table]:
    """R(τ) by τ of every suspect, one table a method: the figures behind the paper's Fig. 3."""
    methods = by_method(judged(results.cells))
    return [_make_curve_table(f"{method}, {results.about}", cells) for method, cells in methods.items()]


def _sort_suspects(cells: Iterable[CellRecord]) -> list[tuple[tuple[ShownKind, str], list[CellRecord]]]:
    """Cells by kind and suspect, kinds in the paper's order."""
    suspects = group_by(cells, lambda cell: (cell.shown_kind, cell.suspect))
    return sorted(suspects.items(), key=lambda item: _KINDS.index(item[0][0]))


def _make_times(own: Sequence[JudgedRecord]) -> list[TableEntry]:
    embed, extract = (average_over_seeds(cell.seconds.get(step) for cell in own) for step in ("embed", "extract"))
    each = average_over_seeds(
        1000 * seconds / cell.verdict.n_trials for cell in own if (seconds := cell.seconds.get("extract")) is not None
    )
    trials = max((cell.verdict.n_trials for cell in own), default=0)
    return [estimate(embed), estimate(extract), estimate(each), trials]


def _make_curve_table(title: str, cells: Sequence[JudgedRecord]) -> Table:
    n_symbols = max(len(cell.verdict.curve) - 1 for cell in cells)
    taus = [tau for tau in _TAUS if tau <= n_symbols]
    columns = [Column("model type", text=True, priority=3), Column("experiment", text=True)]
    columns += [Column(f"τ={tau}", priority=2 if tau in (0, cells[0].verdict.tau) else 3) for tau in taus]
    rows = [
        [kind, suspect, *(rate_entry(members, tau) for tau in taus)]
        for (kind, suspect), members in _sort_suspects(cells)
    ]
    return Table(f"Figure 3: R(τ) of {title}; {n_symbols} symbols a trial", columns, rows, _name_seeds(cells))


def _make_profile_table(owner: str, profile: ProfileRecord) -> Table:
    columns = [Column("block"), Column("top 5 |a|", 2), Column("median |a|", 3), Column("images with massive a.", 2)]
    figures = zip(profile.top, profile.median, profile.massive_share, strict=True)
    rows = [[block, *values] for block, values in enumerate(figures)]
    note = f"{profile.n_images} images; block {profile.block}: {profile.block_choice}."
    return Table(f"Figure 2: activation profile of {owner}", columns, rows, [note])


def _make_rate_or_status(cells: Sequence[CellRecord]) -> TableEntry:
    return list_statuses(cells) if cells and not judged(cells) else rate_entry(cells)


def _describe_machine(run: RunRecord) -> str:
    jobs = run.jobs or 1
    beside = f", {jobs} cells side by side" if jobs > 1 else ""
    return f"{run.machine.system} {run.machine.architecture}, {run.machine.cpus} CPUs, {run.device}{beside}"


def _name_seeds(cells: Iterable[CellRecord]) -> list[str]:
    seeds = sorted({cell.seed for cell in cells})
    return [_SEEDS_NOTE.format(seeds=", ".join(map(str, seeds)))] if seeds else []
