"""The leaderboard: per suite and threat model, methods ranked by how surely they tell stolen models from innocent ones."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from amb.errors import AmbError, BadParamsError, near_names
from amb.evaluation.statistics import auc, clopper_pearson_lower, clopper_pearson_upper, supported_fpr
from amb.plugin.registry import Registry
from amb.report.layouts.cells import Cell, group, judged, rate_entry, reasons, usable
from amb.report.tables import Column, Entry, Table, estimate

LEAST_SUSPECTS: Final = 5
LEAST_NEGATIVES: Final = 5
LEAST_SOURCES: Final = 3
"""Usable suspects, negatives, and sources that the negatives were made from: with fewer a method is not ranked."""
THREATS: Final = {
    "unattacked": "the embedded model as it is; the control",
    "removal": "the attacker has the model alone",
    "adaptive": "the attacker knows the method",
    "key leaked": "the attacker has the owner's key",
    "unknown": "attacks that no plugin here provides, so what the attacker knows cannot be told",
    "forgery": "a key is made up so that an innocent model verifies",
}
"""Threat models, weakest first."""
_KNOWS: Final = ("model", "method", "key")
_MOST_REASONS: Final = 12


def with_leaderboard(
    documents: Mapping[str, Mapping[str, Any]], registry: Registry, suite: str | None = None
) -> dict[str, Any]:
    """One document of all sources' runs and cells, with the tables. Keys are what sources are called.

    A run that is in several sources counts once. Raises BadParamsError for a suite that there is none of.
    """
    document = _merged(documents)
    suites = group(document["cells"], lambda cell: str(cell["suite"]))
    if suite is not None and suite not in suites:
        raise BadParamsError(
            f"There is no suite '{suite}' in these results.{near_names(suite, suites)} There are: {', '.join(suites)}."
        )
    kept = [cell for cell in document["cells"] if suite in (None, cell["suite"])]
    runs = [run for run in document["runs"] if suite in (None, run["suite"])]
    parts = group(kept, lambda cell: (str(cell["suite"]), str(cell["owner"])))
    tables = [table for key, cells in parts.items() for table in _tables(f"{key[0]} ({key[1]})", cells, registry)]
    tables.append(_sources(runs, kept, document["sources"]))
    return {**document, "runs": runs, "cells": kept, "tables": [table.to_json() for table in tables]}


def threat_of(cell: Cell, registry: Registry) -> str:
    """Which of THREATS a positive or forged cell belongs to: the most that any attack of its chain knows."""
    if cell["kind"] == "forged":
        return "forgery"
    if cell["attack"] == "none":
        return "unattacked"
    try:
        known = max(_KNOWS.index(attack.knows) for attack in registry.attack_chain(cell["attack"]))
    except AmbError:
        return "unknown"
    return ("removal", "adaptive", "key leaked")[known]


def _merged(documents: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Every run once, and every cell once: of its verdicts the latest run's, a failure only where there is no verdict."""
    runs: dict[str, Mapping[str, Any]] = {}
    sources: dict[str, list[str]] = {}
    for name, document in documents.items():
        for run in document["runs"]:
            runs[run["id"]] = run
            sources.setdefault(run["id"], []).append(name)
    cells: dict[tuple[Any, ...], Cell] = {}
    everything = (cell for document in documents.values() for cell in document["cells"])
    for cell in sorted(everything, key=lambda cell: str(cell["run"])):
        before = cells.get(_question(cell))
        if before is None or cell["status"] == "ok" or before["status"] != "ok":
            cells[_question(cell)] = cell
    return {"schema": 1, "runs": list(runs.values()), "cells": list(cells.values()), "sources": sources}


def _question(cell: Cell) -> tuple[Any, ...]:
    return tuple(cell[name] for name in ("suite", "owner", "method", "suspect", "attack", "kind", "seed"))


def _tables(about: str, cells: Sequence[Cell], registry: Registry) -> list[Table]:
    """A table for each threat model of which there are cells, weakest first."""
    negatives = group([cell for cell in cells if cell["kind"] == "negative"], _method)
    claims = [cell for cell in cells if cell["kind"] != "negative"]
    threats = group(claims, lambda cell: threat_of(cell, registry))
    ranked = [
        _forgery_table(about, threats[threat])
        if threat == "forgery"
        else _threat_table(threat, about, threats[threat], negatives)
        for threat in THREATS
        if threat in threats
    ]
    return [*ranked, _families(about, {name: threats[name] for name in THREATS if name in threats})]


# Stolen models


_COLUMNS: Final = [
    Column("rank"),
    Column("method", text=True),
    Column("usable"),
    Column("destroyed"),
    Column("no verdict"),
    Column("AUC"),
    Column("owned, of usable", 2),
    Column("R(τ) of usable"),
    Column("highest innocent R"),
    Column("false claims", 2),
    Column("negatives"),
    Column("sources"),
    Column("lowest FPR"),
    Column("seeds"),
    Column("embed s", 1),
    Column("extract s", 2),
]
_NOTES: Final = (
    "rank: one more than the methods whose interval of AUC lies wholly above; in order of its lower end.",
    "AUC: a suspect counts once, with its mean R over seeds, against all negatives, siblings too; Newcombe's interval.",
    f"Not ranked: fewer than {LEAST_SUSPECTS} usable suspects, {LEAST_NEGATIVES} negatives, or {LEAST_SOURCES} sources of negatives.",
    "usable, destroyed, no verdict: suspects that kept their utility, that lost it, that were skipped or failed.",
    "owned (eq. 13) and false claims: share of suspects and of negatives; Clopper-Pearson at as many draws as there are models.",
    "lowest FPR: 1 / (n + 1), the least that n negatives can support.",
)


def _threat_table(threat: str, about: str, cells: Sequence[Cell], negatives: Mapping[str, Sequence[Cell]]) -> Table:
    methods = group(cells, _method)
    rows = _ranked([_row(name, each, judged(negatives.get(name, []))) for name, each in methods.items()], at=5)
    notes = [*_NOTES, *_unequal(methods), *_unranked(rows), *_few(reasons(cells))]
    return Table(f"{threat.capitalize()}: {THREATS[threat]}; {about}", _COLUMNS, rows, notes)


def _row(method: str, cells: Sequence[Cell], negatives: Sequence[Cell]) -> list[Entry]:
    """The row of a method, with its rank to come: True where the evidence is enough for one."""
    known = judged(cells)
    kept = usable(known)
    n_kept, n_known, n_all = (len(group(each, _suspect)) for each in (kept, known, cells))
    positive, innocent = _means(kept, _rate), _means(negatives, _rate)
    n_sources = len(group(negatives, _source))
    enough = n_kept >= LEAST_SUSPECTS and len(innocent) >= LEAST_NEGATIVES and n_sources >= LEAST_SOURCES
    return [
        enough,
        method,
        n_kept,
        n_known - n_kept,
        n_all - n_known,
        estimate(auc(positive, innocent)) if positive and innocent else None,
        _share(_means(kept, _owned)),
        rate_entry(kept),
        max((cell["detection_rate"] for cell in negatives), default=None),
        _share(_means(negatives, _owned)),
        len(innocent),
        n_sources,
        supported_fpr(len(innocent)) if innocent else None,
        len({cell["seed"] for cell in known}),
        _seconds(known, "embed"),
        _seconds(known, "extract"),
    ]


_FAMILY_COLUMNS: Final = [
    Column("threat model", text=True),
    Column("family", text=True),
    Column("method", text=True),
    Column("suspects"),
    Column("destroyed"),
    Column("no verdict"),
    Column("owned, of usable", 2),
    Column("R(τ) of usable"),
]


def _families(about: str, threats: Mapping[str, Sequence[Cell]]) -> Table:
    """What the ranks are made of: every family of attacks, not ranked."""
    rows: list[list[Entry]] = []
    for threat, cells in threats.items():
        for (family, method), members in sorted(group(cells, lambda cell: (_family(cell), _method(cell))).items()):
            rows.append([threat, family, method, *_family_row(members)])
    notes = ["owned, of usable: on forged keys that is a false claim. Intervals as above, over suspects."]
    return Table(f"By family of attacks; {about}", _FAMILY_COLUMNS, rows, notes)


def _family_row(cells: Sequence[Cell]) -> list[Entry]:
    known = judged(cells)
    kept = usable(known)
    n_kept, n_known, n_all = (len(group(each, _suspect)) for each in (kept, known, cells))
    return [n_all, n_known - n_kept, n_all - n_known, _share(_means(kept, _owned)), rate_entry(kept)]


# Forged keys


_FORGERY_COLUMNS: Final = [
    Column("rank"),
    Column("method", text=True),
    Column("claims"),
    Column("no verdict"),
    Column("false claims", 2),
    Column("R(τ) of forged"),
    Column("highest R"),
    Column("models"),
    Column("sources"),
    Column("seeds"),
]
_FORGERY_NOTES: Final = (
    "rank: one more than the methods whose interval of false claims lies wholly below; in order of its upper end.",
    "false claims: share of innocent models that a made-up key claims by eq. 13; a source's models count once.",
    f"Not ranked: fewer than {LEAST_SOURCES} sources of innocent models.",
)


def _forgery_table(about: str, cells: Sequence[Cell]) -> Table:
    methods = group(cells, _method)
    rows = _ranked([_forgery_row(*each) for each in methods.items()], at=4, lowest_first=True)
    notes = [*_FORGERY_NOTES, *_unequal(methods), *_unranked(rows), *_few(reasons(cells))]
    return Table(f"Forgery: {THREATS['forgery']}; {about}", _FORGERY_COLUMNS, rows, notes)


def _forgery_row(method: str, cells: Sequence[Cell]) -> list[Entry]:
    known = judged(cells)
    by_source = group(known, _source)
    claimed = [sum(map(_owned, each)) / len(each) for each in by_source.values()]
    return [
        len(by_source) >= LEAST_SOURCES,
        method,
        len(known),
        len(cells) - len(known),
        _share(claimed),
        rate_entry(known),
        max((cell["detection_rate"] for cell in known), default=None),
        len({cell["digests"].get("model") for cell in known}),
        len(by_source),
        len({cell["seed"] for cell in known}),
    ]


# Ranks


def _ranked(rows: Sequence[list[Entry]], at: int, *, lowest_first: bool = False) -> list[list[Entry]]:
    """The rows in order, those with enough evidence ranked by the estimate in column `at`."""
    sign = -1 if lowest_first else 1
    good = {id(row): _ends(row[at], sign) for row in rows if row[0]}
    good = good if len(good) > 1 else {}  # the first of one is no rank
    ranks = {key: 1 + sum(worst > best for worst, _ in good.values()) for key, (_, best) in good.items()}
    worst_of = {id(row): _ends(row[at], sign)[0] for row in rows}
    ordered = sorted(rows, key=lambda row: (ranks.get(id(row), len(rows) + 1), -worst_of[id(row)], str(row[1])))
    return [[ranks.get(id(row)), *row[1:]] for row in ordered]


def _ends(entry: Entry, sign: int) -> tuple[float, float]:
    """The worst and the best that an estimate allows, larger being better."""
    if not isinstance(entry, Mapping) or entry["low"] is None or entry["high"] is None:
        return float("-inf"), float("inf")
    low, high = sorted((sign * entry["low"], sign * entry["high"]))
    return low, high


def _unranked(rows: Sequence[Sequence[Entry]]) -> list[str]:
    """Which methods have no rank, and where that says all there is to say."""
    names = [str(row[1]) for row in rows if row[0] is None]
    if names and len(names) == len(rows):
        return ["No method is ranked: fewer than two have evidence enough."]
    shared = len({row[0] for row in rows if row[0] is not None}) == 1 and len(rows) - len(names) > 1
    lines = [f"Not ranked for want of evidence: {', '.join(names)}."] if names else []
    return [*lines, "All ranked methods share one rank: their intervals overlap."] if shared else lines


def _unequal(methods: Mapping[str, Sequence[Cell]]) -> list[str]:
    """A method that was spared some suspects is not compared on equal terms."""
    judged_on = {name: set(group(judged(cells), _suspect)) for name, cells in methods.items()}
    every = set().union(*judged_on.values())
    return [
        f"{name} has no verdict on {len(every - own)} of {len(every)} suspects that others were judged on."
        for name, own in judged_on.items()
        if every - own
    ]


# What the tables rest on


def _sources(runs: Sequence[Mapping[str, Any]], cells: Sequence[Cell], sources: Mapping[str, Sequence[str]]) -> Table:
    columns = [
        "run",
        "from",
        "suite",
        "owner",
        "sweep",
        "seed",
        "cells",
        "trials",
        "started",
        "amb",
        "torch",
        "machine",
    ]
    numbers = ("seed", "cells", "trials")
    by_run = group(cells, lambda cell: str(cell["run"]))
    rows: list[list[Entry]] = [_source_row(run, by_run.get(run["id"], []), sources[run["id"]]) for run in runs]
    notes = ["cells: those that count here; where several runs judged a cell, the latest does."]
    return Table("Runs behind it", [Column(name, text=name not in numbers) for name in columns], rows, notes)


def _source_row(run: Mapping[str, Any], cells: Sequence[Cell], sources: Sequence[str]) -> list[Entry]:
    machine, versions = run.get("machine", {}), run.get("versions", {})
    return [
        run["id"],
        ", ".join(sources),
        run["suite"],
        run["owner"],
        run.get("sweep"),
        run.get("seed"),
        len(cells),
        max((cell["n_trials"] for cell in judged(cells)), default=None),
        run.get("started"),
        versions.get("amb"),
        versions.get("torch"),
        f"{machine.get('architecture')}, {machine.get('cpus')} CPUs, {run.get('device')}",
    ]


# Figures


def _means(cells: Iterable[Cell], of: Callable[[Cell], float]) -> list[float]:
    """A figure of each suspect, its mean over seeds."""
    return [sum(map(of, each)) / len(each) for each in group(cells, _suspect).values()]


def _share(values: Sequence[float]) -> Entry:
    """Mean of shares with Clopper-Pearson's interval at as many draws as there are values; None where there are none."""
    if not values:
        return None
    n = len(values)
    mean = sum(values) / n
    low, high = clopper_pearson_lower(mean * n, n, 0.025), clopper_pearson_upper(mean * n, n, 0.025)
    return {"value": mean, "low": float(low), "high": float(high)}


def _seconds(cells: Sequence[Cell], step: str) -> Entry:
    return sum(cell["seconds"][step] for cell in cells) / len(cells) if cells else None


def _few(lines: Sequence[str]) -> list[str]:
    more = len(lines) - _MOST_REASONS
    return [*lines[:_MOST_REASONS], *([f"And {more} more without a verdict."] if more > 0 else [])]


def _method(cell: Cell) -> str:
    return str(cell["method"])


def _suspect(cell: Cell) -> str:
    return str(cell["suspect"])


def _family(cell: Cell) -> str:
    """The classes of attack in the chain, or which forgery; `none` for the control."""
    return str(cell["suspect"]).partition(" on ")[0] if cell["kind"] == "forged" else str(cell.get("group") or "none")


def _source(cell: Cell) -> str:
    return str(cell.get("source") or cell["suspect"])


def _rate(cell: Cell) -> float:
    return float(cell["detection_rate"])


def _owned(cell: Cell) -> float:
    return float(bool(cell["owned"]))
