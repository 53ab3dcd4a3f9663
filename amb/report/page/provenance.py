"""The last sections of the page: every cell, how figures were computed, and what the results were made with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from amb.report.figures import KINDS
from amb.report.layouts.cells import Cell, group, interval_entry, judged, kind_of, mean_entry, utility_text
from amb.report.page.sections import Fact, Section
from amb.report.tables import Column, Entry, Table

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
    Column("extract s", 2),
    Column("evidence", text=True),
    Column("reason", text=True),
)
_HOW: Final = (
    Fact("R(τ)", "Share of trials with at most τ wrong symbols (eq. 5 of ActiveMark, arXiv 2510.04966)."),
    Fact("Intervals of rates", "Clopper-Pearson over trials; over several seeds that of Korn and Graubard (1998), with a seed as the cluster, or a source where innocent models are pooled."),
    Fact("Claimed, owned", "R exceeds the bound of eq. 13, which all negatives that were read with the same key give, each trigger's limit taken at alpha / triggers."),
    Fact("Calibrated p", "Rank of a suspect's R among the negatives, (1 + number at least as high) / (n + 1)."),
    Fact("AUC", "Share of pairs of a positive and a negative suspect in which the positive reads higher, ties half; Newcombe's interval (2006, method 5)."),
    Fact("Destroyed", "A positive suspect that lost more of the protected model's utility than the suite tolerates; it counts neither for nor against robustness."),
)  # fmt: skip


def cells(document: Mapping[str, Any]) -> Section:
    """Every cell, lean: what was asked, what was read, and the digest of the evidence."""
    table = Table("All cells", _CELLS, [_cell(cell) for cell in document["cells"]], (_cells_note(document["cells"]),))
    return Section("cells", "All cells", tables=(table,))


def how() -> Section:
    """How figures and statistics were computed."""
    facts = [*_HOW, *(Fact(kind.title, kind.shows) for kind in KINDS.values())]
    return Section("how", "How each figure was computed", facts=facts)


def time_and_memory(document: Mapping[str, Any]) -> Table:
    """Peak memory of each method."""
    columns = (
        Column("method", text=True),
        Column("embed MiB", 0),
        Column("attack and extract MiB, mean", 0),
        Column("most", 0),
    )
    embeds = group([each for run in document["runs"] for each in run["embeddings"]], lambda each: str(each["method"]))
    rows: list[list[Entry]] = []
    for method, members in group(judged(document["cells"]), lambda cell: str(cell["method"])).items():
        used = [cell["peak_memory_mib"] for cell in members if cell["peak_memory_mib"] is not None]
        embed = [each["peak_memory_mib"] for each in embeds.get(method, []) if each.get("peak_memory_mib")]
        mean = mean_entry(used)
        rows.append(
            [
                method,
                max(embed, default=None),
                mean["value"] if isinstance(mean, Mapping) else None,
                max(used, default=None),
            ]
        )
    return Table("Peak memory", columns, rows)


def provenance(document: Mapping[str, Any]) -> Section:
    """Runs, versions, machines, seeds, and the digests of keys and models."""
    return Section(
        "provenance", "Versions, seeds and digests", tables=(_runs(document), _versions(document), _keys(document))
    )


def _cell(cell: Cell) -> list[Entry]:
    asked = [
        cell["suspect"],
        cell["method"],
        cell["owner"],
        kind_of(cell),
        cell.get("group"),
        cell["seed"],
        cell["status"],
    ]
    if cell["status"] != "ok":
        return [*asked, *[None] * (len(_CELLS) - len(asked) - 1), cell["reason"]]
    return [
        *asked,
        bool(cell["owned"]),
        interval_entry(cell),
        cell["tau"],
        cell["bit_error_rate"],
        cell["p_values"]["calibrated"],
        utility_text(cell["utility"]),
        cell.get("utility_drop"),
        cell["seconds"].get("extract"),
        _short(cell["digests"].get("evidence")),
        None,
    ]


def _cells_note(members: Sequence[Cell]) -> str:
    n_cached = sum(bool(cell["cached"]) for cell in members)
    return f"{n_cached} of {len(members)} cells were read from the store, not computed in the run. class: family of attacks, or class of the innocent model."


def _runs(document: Mapping[str, Any]) -> Table:
    names = (
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
        "git_commit",
    )
    rows: list[list[Entry]] = [[_said(run.get(name)) for name in names] for run in document["runs"]]
    return Table("Runs", [Column(name.replace("_", " "), text=True) for name in names], rows)


def _versions(document: Mapping[str, Any]) -> Table:
    """Each version that some run was made with, and by how many."""
    made: dict[tuple[str, str], int] = {}
    for run in document["runs"]:
        for what in [*(run.get("versions") or {}).items(), *(run.get("plugins") or {}).items()]:
            made[what] = made.get(what, 0) + 1
    columns = (Column("package or plugin", text=True), Column("version", text=True), Column("runs"))
    return Table("Versions", columns, [[name, version, n] for (name, version), n in sorted(made.items())])


def _keys(document: Mapping[str, Any]) -> Table:
    """Digests of what was embedded, for each method and seed."""
    columns = [
        Column("method", text=True),
        Column("owner", text=True),
        Column("seed"),
        Column("key", text=True),
        Column("model", text=True),
    ]
    control = [cell for cell in judged(document["cells"]) if cell["kind"] == "positive" and cell["attack"] == "none"]
    rows = [
        [
            cell["method"],
            cell["owner"],
            cell["seed"],
            _short(cell["digests"].get("key")),
            _short(cell["digests"].get("model")),
        ]
        for cell in control
    ]
    return Table("Digests of keys and protected models", columns, rows)


def _short(digest: str | None) -> str | None:
    return digest[:_DIGITS] if digest else None


def _said(value: Any) -> str | None:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {each}" for name, each in value.items())
    return None if value is None else str(value)
