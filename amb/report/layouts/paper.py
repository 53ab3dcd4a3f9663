"""Layouts `paper-...`: the tables of the ActiveMark paper and the figures behind its figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from amb.report.layouts.cells import Cell, group, judged, kind_of, mean_entry, rate_entry, reasons
from amb.report.tables import Column, Entry, Table

_KINDS: Final = ("positive", "negative", "sibling", "forged")
_TAUS: Final = (0, 1, 2, 3, 4, 5, 6, 8, 10, 12, 16)
_SEEDS_NOTE: Final = "Mean over seeds {seeds}; interval of Korn and Graubard over trials in seeds, 95 %."


def table1(document: Mapping[str, Any]) -> list[Table]:
    """Block ablation: the message read at once, and after each attack."""
    cells = [cell for cell in document["cells"] if cell["kind"] == "positive"]
    attacks = list(dict.fromkeys(cell["suspect"] for cell in cells if cell["suspect"] != "unattacked"))
    columns = [Column("method", text=True), Column("R(0)"), Column("R(4)"), Column("avg. error", 2)]
    columns += [Column(f"{attack}: R(τ)") for attack in attacks]
    rows: list[list[Entry]] = []
    for method, members in group(cells, lambda cell: str(cell["method"])).items():
        own = [cell for cell in judged(members) if cell["suspect"] == "unattacked"]
        wrong = mean_entry(cell["bit_error_rate"] * (len(cell["curve"]) - 1) for cell in own)
        after: list[Entry] = [rate_entry([each for each in members if each["suspect"] == name]) for name in attacks]
        rows.append([method, rate_entry(own, 0), rate_entry(own, 4), wrong, *after])
    notes = [*_seeds(cells), "avg. error: wrong symbols a trial on the embedded model.", *reasons(cells)]
    return [Table(f"Table 1: where the message is written, {document['about']}", columns, rows, notes)]


def table2(document: Mapping[str, Any]) -> list[Table]:
    """R of every suspect, a column for each method."""
    cells = document["cells"]
    methods = list(dict.fromkeys(cell["method"] for cell in cells))
    columns = [Column("model type", text=True), Column("experiment", text=True), *(Column(name) for name in methods)]
    suspects = group(cells, lambda cell: (kind_of(cell), str(cell["suspect"])))
    rows: list[list[Entry]] = []
    for (kind, suspect), members in sorted(suspects.items(), key=lambda item: _KINDS.index(item[0][0])):
        by_method = [[cell for cell in members if cell["method"] == method] for method in methods]
        rows.append([kind, suspect, *(_rate_or_status(each) for each in by_method)])
    taus = {cell["method"]: cell["tau"] for cell in judged(cells)}
    said = "; ".join(f"{method}: τ = {tau}" for method, tau in taus.items())
    return [
        Table(
            f"Table 2: detection rate R(τ), {document['about']}",
            columns,
            rows,
            [*_seeds(cells), f"{said}.", *reasons(cells)],
        )
    ]


def table3(document: Mapping[str, Any]) -> list[Table]:
    """What embedding and extraction take, as measured when they were computed."""
    columns = [Column("method", text=True), Column("embed s", 2), Column("extract s", 3)]
    columns += [Column("extract ms a trial", 2), Column("trials"), Column("utility fall", 4)]
    rows: list[list[Entry]] = []
    cells = judged(document["cells"])
    for method, members in group(cells, lambda cell: str(cell["method"])).items():
        own = [cell for cell in members if cell["suspect"] == "unattacked"]
        each = [1000 * cell["seconds"]["extract"] / cell["n_trials"] for cell in own]
        embed, extract = ([cell["seconds"][step] for cell in own] for step in ("embed", "extract"))
        trials = max((cell["n_trials"] for cell in own), default=0)
        rows.append([method, mean_entry(embed), mean_entry(extract), mean_entry(each), trials, _fall(document, method)])
    machines = sorted({_machine(run) for run in document["runs"]})
    notes = ["Mean over seeds with Student's interval, 95 %.", *(f"Measured on {machine}." for machine in machines)]
    old = sum(cell["cached"] for cell in cells)
    if old:
        notes.append(
            f"{old} of {len(cells)} cells were timed by an earlier run, perhaps beside others. "
            "A fresh --output-dir times all of them."
        )
    notes.append("utility fall: largest fall of any utility figure by embedding, over seeds.")
    return [Table(f"Table 3: time, {document['about']}", columns, rows, notes)]


def figure2(document: Mapping[str, Any]) -> list[Table]:
    """The activation profile of each owner: the figures behind the paper's Fig. 2."""
    profiles = [run["profile"] for run in document["runs"] if run.get("profile")]
    return [_profile_table(document["about"], profiles[-1])] if profiles else []


def figure3(document: Mapping[str, Any]) -> list[Table]:
    """R(τ) by τ of every suspect, one table a method: the figures behind the paper's Fig. 3."""
    methods = group(judged(document["cells"]), lambda cell: str(cell["method"]))
    return [_curves(f"{method}, {document['about']}", cells) for method, cells in methods.items()]


def _curves(title: str, cells: Sequence[Cell]) -> Table:
    n_symbols = max(len(cell["curve"]) - 1 for cell in cells)
    taus = [tau for tau in _TAUS if tau <= n_symbols]
    columns = [Column("model type", text=True), Column("experiment", text=True), *(Column(f"τ={tau}") for tau in taus)]
    suspects = group(cells, lambda cell: (kind_of(cell), str(cell["suspect"])))
    rows: list[list[Entry]] = [
        [kind, suspect, *(rate_entry(members, tau) for tau in taus)]
        for (kind, suspect), members in sorted(suspects.items(), key=lambda item: _KINDS.index(item[0][0]))
    ]
    return Table(f"Figure 3: R(τ) of {title}; {n_symbols} symbols a trial", columns, rows, _seeds(cells))


def _profile_table(owner: str, profile: Mapping[str, Any]) -> Table:
    columns = [Column("block"), Column("top 5 |a|", 2), Column("median |a|", 3), Column("images with massive a.", 2)]
    figures = zip(profile["top"], profile["median"], profile["massive_share"], strict=True)
    rows = [[block, *values] for block, values in enumerate(figures)]
    chosen = f"block {profile['block']}: {profile['block_choice']}."
    return Table(f"Figure 2: activation profile of {owner}", columns, rows, [f"{profile['n_images']} images; {chosen}"])


def _rate_or_status(cells: Sequence[Cell]) -> Entry:
    if cells and not judged(cells):
        return " and ".join(sorted({str(cell["status"]) for cell in cells}))
    return rate_entry(cells)


def _fall(document: Mapping[str, Any], method: str) -> Entry:
    """The largest fall of any utility figure by embedding."""
    falls = [
        each["utility_before"][name] - each["utility_after"][name]
        for run in document["runs"]
        for each in run["embeddings"]
        if each["method"] == method
        for name in each["utility_before"]
    ]
    return max(falls) if falls else None


def _machine(run: Mapping[str, Any]) -> str:
    facts = run["machine"]
    jobs = run.get("jobs", 1)
    beside = f", {jobs} cells side by side" if jobs > 1 else ""
    return f"{facts['system']} {facts['architecture']}, {facts['cpus']} CPUs, {run['device']}{beside}"


def _seeds(cells: Sequence[Cell]) -> list[str]:
    seeds = sorted({cell["seed"] for cell in cells})
    return [_SEEDS_NOTE.format(seeds=", ".join(map(str, seeds)))] if seeds else []
