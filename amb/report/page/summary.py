"""The first section of the page: which method, on what evidence, and what to be careful about."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from amb.evaluation.statistics import auc, clopper_pearson, supported_fpr
from amb.report.figures.subjects import negatives, positives, rates, subjects
from amb.report.layouts.cells import Cell, group, mean_entry, rate_entry, usable
from amb.report.page.sections import Section
from amb.report.tables import Column, Entry, Table, estimate

_WANTED_FPR: Final = 0.05
_MOST_NAMED: Final = 5
_COLUMNS: Final = (
    Column("method", text=True),
    Column("seeds"),
    Column("R(τ) unattacked"),
    Column("R(τ) attacked"),
    Column("owned, of attacked", 2),
    Column("destroyed", text=True),
    Column("false claims", text=True),
    Column("forged claims", text=True),
    Column("negatives"),
    Column("lowest FPR"),
    Column("AUC"),
    Column("embed s", 1),
    Column("extract s", 2),
)
_NOTES: Final = (
    "attacked: positive suspects that an attack made and that are still worth having; destroyed ones are left out.",
    "owned: by the paper's rule (eq. 13), Clopper-Pearson over suspects and seeds.",
    "false claims: the same rule on innocent models, siblings included; forged: with a key that was made up for them.",
    "negatives: fewest innocent models that a verdict rests on; lowest FPR: 1 / (n + 1), the least they can support.",
)


def summary(document: Mapping[str, Any]) -> Section:
    """A sentence for each method and each caveat, and the methods side by side."""
    found = subjects(document)
    rows = [[name, *_row(cells)] for name, cells in found.items()]
    tables = (Table("Methods side by side", _COLUMNS, rows, _NOTES),) if rows else ()
    points = [*(_sentence(name, cells) for name, cells in found.items()), *_caveats(document, found)]
    return Section("summary", "Summary", (_scope(document), _choice(found)), points, tables=tables)


def _row(cells: Sequence[Cell]) -> list[Entry]:
    control = [cell for cell in positives(cells) if cell["attack"] == "none"]
    attacked, innocents = _attacked(cells), negatives(cells)
    forged = [cell for cell in cells if cell["kind"] == "forged"]
    n_lost = len(attacked) - len(kept := usable(attacked))
    return [
        len({cell["seed"] for cell in cells}),
        rate_entry(control),
        rate_entry(kept),
        _owned(kept),
        _of(n_lost, attacked),
        _of(_n_owned(innocents), innocents),
        _of(_n_owned(forged), forged),
        fewest := _fewest(cells),
        supported_fpr(fewest),
        _auc(cells),
        _mean({cell["seed"]: cell["seconds"].get("embed") for cell in cells}.values()),
        _mean(cell["seconds"].get("extract") for cell in cells),
    ]


def _sentence(name: str, cells: Sequence[Cell]) -> str:
    """What a method has shown, on how much."""
    kept, innocents = usable(_attacked(cells)), negatives(cells)
    claimed = [cell for cell in innocents if cell["owned"]]
    who = f": {_named(sorted({str(cell['suspect']) for cell in claimed}))}" if claimed else ""
    survived = f"claims {_n_owned(kept)} of {len(kept)} usable attacked copies" if kept else "was not attacked"
    false = f"raises {len(claimed)} false claims on {len(innocents)} readings of innocent models{who}"
    return f"{name} {survived} and {false}. Its verdicts rest on {cells[0]['n_trials']} trials and {_fewest(cells)} negatives."


def _choice(found: Mapping[str, Sequence[Cell]]) -> str:
    """Which method these results speak for, if they speak for one."""
    honest = {name: cells for name, cells in found.items() if negatives(cells) and not _n_owned(negatives(cells))}
    shares = {name: _n_owned(kept) / len(kept) for name, cells in honest.items() if (kept := usable(_attacked(cells)))}
    if not found:
        return "No cell has a verdict."
    if not shares:
        return "These results speak for no method: each lacks attacks or negatives, or raises false claims."
    best = [name for name, share in shares.items() if share == max(shares.values())]
    lead = f"Methods without a false claim here: {len(honest)} of {len(found)}"
    return f"{lead}. Of those, {_named(best)} claims the largest share of usable attacked copies, {max(shares.values()):.2f}."


def _caveats(document: Mapping[str, Any], found: Mapping[str, Sequence[Cell]]) -> list[str]:
    cells = document["cells"]
    statuses = group(cells, lambda cell: str(cell["status"]))
    lines = [
        f"Caution: {len(statuses[name])} of {len(cells)} cells {verb}; they count nowhere."
        for name, verb in (("failed", "failed"), ("skipped", "do not apply and were skipped"))
        if name in statuses
    ]
    fewest = min(map(_fewest, found.values()), default=0)
    if supported_fpr(fewest) > _WANTED_FPR:
        lines.append(
            f"Caution: {fewest} negatives support no false positive rate below {supported_fpr(fewest):.3f}; "
            f"{round(1 / _WANTED_FPR) - 1} are needed for {_WANTED_FPR:g}."
        )
    seeds = {cell["seed"] for cell in cells}
    return [
        *lines,
        *(["Caution: one seed; intervals say nothing of another key or training."] if len(seeds) == 1 else []),
    ]


def _scope(document: Mapping[str, Any]) -> str:
    cells, n_runs = document["cells"], len(document["runs"])
    where = _named(sorted({f"{cell['suite']} ({cell['owner']})" for cell in cells}))
    sweeps = sorted({str(run["sweep"]) for run in document["runs"] if run.get("sweep")})
    named = f", sweep {_named(sweeps)}" if sweeps else ""
    return f"{len(cells)} cells of {n_runs} {'run' if n_runs == 1 else 'runs'} of {where or 'no suite'}{named}."


def _attacked(cells: Sequence[Cell]) -> list[Cell]:
    return [cell for cell in positives(cells) if cell["attack"] != "none"]


def _n_owned(cells: Sequence[Cell]) -> int:
    return sum(bool(cell["owned"]) for cell in cells)


def _owned(cells: Sequence[Cell]) -> Entry:
    if not cells:
        return None
    low, high = clopper_pearson(_n_owned(cells), len(cells))
    return {"value": _n_owned(cells) / len(cells), "low": low, "high": high}


def _of(n: int, cells: Sequence[Cell]) -> str | None:
    return f"{n} of {len(cells)}" if cells else None


def _fewest(cells: Sequence[Cell]) -> int:
    """Of the verdicts on positives where there are any: forged keys have negatives of their own."""
    return min(int(cell["n_negatives"]) for cell in positives(cells) or cells)


def _auc(cells: Sequence[Cell]) -> Entry:
    marked, innocents = rates(usable(positives(cells))), rates(negatives(cells))
    return estimate(auc(list(marked.values()), list(innocents.values()))) if marked and innocents else None


def _mean(values: Any) -> Entry:
    entry = mean_entry(values)
    return entry["value"] if isinstance(entry, Mapping) else None


def _named(names: Sequence[str]) -> str:
    rest = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    return "; ".join(names[:_MOST_NAMED]) + rest
