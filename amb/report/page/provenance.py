"""The last sections of the page: every cell, how figures were computed, and what the results were made with."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, Final

from amb.report.entries import interval_entry, utility_text
from amb.report.figures import FIGURE_KINDS
from amb.report.page.sections import Fact, Section
from amb.report.tables import Column, Table, TableEntry
from amb.results.aggregate import by_method, group_by, judged, mean, unattacked
from amb.results.records import CellRecord, JudgedRecord
from amb.results.result_set import ResultSet
from amb.results.run_records import RunRecord

_DIGITS: Final = 12
"""Of a digest, enough to tell two apart."""
_CELLS: Final = (
    Column("suspect", text=True),
    Column("method", text=True),
    Column("owner", text=True),
    Column("kind", text=True),
    Column("class", text=True),
    Column("seed"),
    Column("status", text=True),
    Column("claimed", text=True),
    Column("R(τ)"),
    Column("τ"),
    Column("BER"),
    Column("p calib."),
    Column("utility"),
    Column("lost", 2),
    Column("extract s", seconds=True),
    Column("evidence", text=True),
    Column("reason", text=True),
)
_HOW: Final = (
    Fact("R(τ)", "Share of trials with at most τ wrong symbols (eq. 5 of ActiveMark, arXiv 2510.04966)."),
    Fact("Intervals of rates", "Clopper-Pearson over trials; over several seeds that of Korn and Graubard (1998), with a seed as the cluster, or a source where innocent models are pooled."),
    Fact("Claim", "p is at most the level: exact, the binomial over all symbols of a method whose null is exact; calibrated, the rank among sources of innocent models, whose level is the smallest that so many sources support."),
    Fact("Paper's rule", "R exceeds the bound of eq. 13, which all negatives that were read with the same key give, each trigger's limit taken at alpha / triggers."),
    Fact("Calibrated p", "Rank of a suspect's R among the negatives, (1 + number at least as high) / (n + 1)."),
    Fact("AUC", "Share of pairs of a positive and a negative suspect in which the positive reads higher, ties half; Newcombe's interval (2006, method 5)."),
    Fact("Destroyed", "A positive suspect that lost more of the protected model's utility than the suite tolerates; it counts neither for nor against robustness."),
)  # fmt: skip


def make_cells(results: ResultSet) -> Section:
    """Every cell, lean: what was asked, what was read, and the digest of the evidence."""
    rows = [_make_cell_row(cell) for cell in results.cells]
    table = Table("All cells", _CELLS, rows, (_count_cached(results.cells),))
    return Section("cells", "All cells", tables=(table,))


def make_how() -> Section:
    """How figures and statistics were computed."""
    facts = [*_HOW, *(Fact(kind.title, kind.shows) for kind in FIGURE_KINDS.values())]
    return Section("how", "How each figure was computed", facts=facts)


def make_memory_table(results: ResultSet) -> Table:
    """Peak memory of each method."""
    columns = (
        Column("method", text=True),
        Column("embed MiB", 0),
        Column("attack and extract MiB, mean", 0),
        Column("most", 0),
    )
    embeddings = group_by((each for run in results.runs for each in run.embeddings), lambda each: each.method)
    rows: list[list[TableEntry]] = []
    for method, members in by_method(judged(results.cells)).items():
        used = [cell.peak_memory_mib for cell in members if cell.peak_memory_mib is not None]
        embed = [each.peak_memory_mib for each in embeddings.get(method, []) if each.peak_memory_mib]
        rows.append([method, max(embed, default=None), mean(used), max(used, default=None)])
    return Table("Peak memory", columns, rows)


def make_provenance(results: ResultSet) -> Section:
    """Runs, versions, machines, seeds, and the digests of keys and models."""
    tables = (_make_run_table(results.runs), _make_version_table(results.runs), _make_digest_table(results.cells))
    return Section("provenance", "Versions, seeds and digests", tables=tables)


def _make_cell_row(cell: CellRecord) -> list[TableEntry]:
    asked: list[TableEntry] = [
        cell.suspect,
        cell.method,
        cell.owner,
        cell.shown_kind,
        cell.group,
        cell.seed,
        cell.status,
    ]
    if not isinstance(cell, JudgedRecord):
        return [*asked, *[None] * (len(_CELLS) - len(asked) - 1), cell.reason]
    return [
        *asked,
        cell.claim,
        interval_entry(cell),
        cell.verdict.tau,
        cell.verdict.bit_error_rate,
        cell.verdict.p_values["calibrated"],
        utility_text(cell.utility),
        cell.utility_drop,
        cell.seconds.get("extract"),
        _cut_digest(cell.digests.get("evidence")),
        None,
    ]


def _count_cached(cells: Sequence[CellRecord]) -> str:
    n_cached = sum(cell.cached for cell in cells)
    return f"{n_cached} of {len(cells)} cells were read from the store, not computed in the run. class: family of attacks, or class of the innocent model."


_RUN_COLUMNS: Final = (
    "id",
    "started",
    "sweep",
    "suite",
    "owner",
    "seed",
    "alpha",
    "device",
    "compute",
    "jobs",
    "machine",
    "git commit",
)


def _make_run_table(runs: Iterable[RunRecord]) -> Table:
    return Table("Runs", [Column(name, text=True) for name in _RUN_COLUMNS], [_make_run_row(run) for run in runs])


def _make_run_row(run: RunRecord) -> list[TableEntry]:
    facts = (
        *(run.id, run.started, run.sweep, run.suite, run.owner, run.seed, run.alpha, run.device),
        *(run.compute, run.jobs, asdict(run.machine), run.git_commit),
    )
    return [_show_fact(fact) for fact in facts]


def _make_version_table(runs: Iterable[RunRecord]) -> Table:
    """Each version that some run was made with, and by how many."""
    made = Counter(what for run in runs for what in [*run.versions.items(), *run.plugins.items()])
    columns = (Column("package or plugin", text=True), Column("version", text=True), Column("runs"))
    return Table("Versions", columns, [[name, version, n] for (name, version), n in sorted(made.items())])


def _make_digest_table(cells: Iterable[CellRecord]) -> Table:
    """Digests of what was embedded, for each method and seed."""
    columns = [
        Column("method", text=True),
        Column("owner", text=True),
        Column("seed"),
        Column("key", text=True),
        Column("model", text=True),
    ]
    rows = [
        [cell.method, cell.owner, cell.seed, *(_cut_digest(cell.digests.get(what)) for what in ("key", "model"))]
        for cell in unattacked(judged(cells))
    ]
    return Table("Digests of keys and protected models", columns, rows)


def _cut_digest(digest: str | None) -> str | None:
    return digest[:_DIGITS] if digest else None


def _show_fact(value: Any) -> str | None:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {each}" for name, each in value.items())
    return None if value is None else str(value)
