"""Layout `choice`: for the access that one has and the thief that one fears, the methods with a valid claim there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, get_args

from amb.api.types import ACCESS_LEVELS, Thief
from amb.evaluation.intervals import Estimate
from amb.report.entries import count_entry, list_reasons
from amb.report.tables import Column, Table, TableEntry, estimate
from amb.results.aggregate import (
    by_method,
    count_claims,
    count_seeds,
    embed_seconds,
    group_by,
    judged,
    mean,
    mean_seconds,
    negatives,
    share_of_suspects_claimed,
    usable,
)
from amb.results.records import JudgedRecord
from amb.results.result_set import ResultSet
from amb.results.run_records import RunRecord, largest_fall
from amb.results.thieves import KNOWING, SEVERAL, UNKNOWN

_FORGES: Final = "forges a key"
_ORDER: Final = (*(each for each in get_args(Thief) if each != _FORGES), SEVERAL, *KNOWING, _FORGES, UNKNOWN)
"""Thieves as rows stand: what he does, then what he knows."""
_UNKNOWN_ACCESS: Final = "access unknown"
_EVIDENCE: Final = (
    Column("thief", text=True),
    Column("method", text=True),
    Column("access", text=True, priority=2),
    Column("claimed, of usable", 2),
    Column("cells", priority=2),
    Column("seeds", priority=3),
    Column("destroyed", text=True, priority=3),
    Column("false claims", text=True),
    Column("level", priority=2),
    Column("utility fall", 4, priority=2),
    Column("embed s", seconds=True, priority=3),
    Column("extract s", seconds=True, priority=3),
)
_CHOICE_NOTES: Final = (
    "A method stands where at least one usable model of that thief is claimed: claims, of usable cells. In brackets its false claims, of readings of innocent models, siblings included, where it has any.",
    "Columns are what a method asks to see of the suspect. Whoever sees more can use what stands further left: labels are there wherever logits are, features and weights belong to the model itself.",
    "Under a forged key a claim is a false one: there stand the methods that claimed none, with the number of tries in vain.",
    "A claim is p at most the level, exact or by rank among sources of innocent models: the table of evidence has the level of each.",
)
_EVIDENCE_NOTES: Final = (
    "claimed, of usable: share of suspects with p at most the level, each with its share of seeds; Clopper-Pearson over suspects. Under a forged key that is the share of false claims.",
    "false claims: readings of innocent models that are claimed, siblings included; of the method, whoever the thief is.",
    "level: how often a claim may be wrong, as asked for where the null is exact, else 1 / (n + 1) for n sources of innocent models.",
    "utility fall: largest fall of any utility figure by embedding. Times as measured when they were computed, means.",
)


@dataclass(frozen=True)
class _Candidate:
    """A method against one thief."""

    thief: str
    method: str
    access: str
    cells: Sequence[JudgedRecord]
    """Of this thief, destroyed models among them."""
    innocents: Sequence[JudgedRecord]

    @property
    def kept(self) -> list[JudgedRecord]:
        """Those that are still worth having."""
        return usable(self.cells)

    @property
    def share(self) -> Estimate | None:
        """Share of suspects claimed."""
        return share_of_suspects_claimed(self.kept)

    @property
    def holds(self) -> bool:
        """Whether it has a valid claim against this thief; against a forger, whether it claimed nothing."""
        n = count_claims(self.kept)
        return bool(self.kept) and (n == 0 if self.thief == _FORGES else n > 0)


def choice(results: ResultSet) -> list[Table]:
    """Thief by access, with the methods that hold; then the evidence behind each; nothing without claims to make."""
    found = _list_candidates(results)
    if not found:
        return []
    reasons = list_reasons(cell for cell in results.cells if cell.kind != "negative")
    return [
        _make_choice(found, results.about),
        Table(
            f"Evidence behind the choice, {results.about}",
            _EVIDENCE,
            _list_evidence(found, results),
            [*_EVIDENCE_NOTES, *reasons],
        ),
    ]


def _list_candidates(results: ResultSet) -> list[_Candidate]:
    """Every method against every thief that it met, in the order of the rows."""
    access = {each.method: each.access for run in results.runs for each in run.embeddings if each.access}
    innocents = by_method(judged(negatives(results.cells)))
    met = judged(cell for cell in results.cells if cell.kind != "negative")
    thieves = group_by(met, lambda cell: (results.thieves.thief(cell), cell.method))
    found = [
        _Candidate(thief, method, access.get(method, _UNKNOWN_ACCESS), cells, innocents.get(method, []))
        for (thief, method), cells in thieves.items()
    ]
    return sorted(found, key=_rank)


def _rank(candidate: _Candidate) -> tuple[int, float, str]:
    """By thief, then the surest first: the lower end of the share, or the upper one where a claim is false."""
    share = candidate.share
    worth = (-share.high if candidate.thief == _FORGES else share.low) if share else -1.0
    return _ORDER.index(candidate.thief), -worth, candidate.method


def _make_choice(found: Sequence[_Candidate], about: str) -> Table:
    levels = [level for level in (*ACCESS_LEVELS, _UNKNOWN_ACCESS) if any(each.access == level for each in found)]
    rows: list[list[TableEntry]] = []
    for thief, each in group_by(found, lambda candidate: candidate.thief).items():
        rows.append([thief, *(_name_holding([one for one in each if one.access == level]) for level in levels)])
    columns = [Column("thief", text=True), *(Column(level, text=True) for level in levels)]
    title = f"Which method for which thief, {about}"
    return Table(title, columns, rows, _CHOICE_NOTES, _list_gaps(found, levels))


def _name_holding(candidates: Sequence[_Candidate]) -> str | None:
    return "; ".join(_name_candidate(each) for each in candidates if each.holds) or None


def _name_candidate(candidate: _Candidate) -> str:
    """Such as `spread-features 18/18`, or `activemark 3/6 (5/9 false)`."""
    n, n_false = count_claims(candidate.kept), count_claims(candidate.innocents)
    false = f" ({n_false}/{len(candidate.innocents)} false)" if n_false else ""
    return f"{candidate.method} {n}/{len(candidate.kept)}{false}"


def _list_gaps(found: Sequence[_Candidate], levels: Sequence[str]) -> list[str]:
    """For each access, against whom no method that makes do with it has a claim."""
    known = [level for level in levels if level in ACCESS_LEVELS]
    lines = []
    for at, level in enumerate(known):
        within = [each for each in found if each.access in known[: at + 1]]
        lost = [
            thief
            for thief, each in group_by(within, lambda one: one.thief).items()
            if not any(one.holds for one in each)
        ]
        if lost:
            lines.append(f"With no more than {level}, no method here holds against a thief who {'; who '.join(lost)}.")
    return lines


def _list_evidence(found: Sequence[_Candidate], results: ResultSet) -> list[list[TableEntry]]:
    of_method = by_method(judged(results.cells))
    return [_make_row(each, of_method[each.method], results.runs) for each in found]


def _make_row(candidate: _Candidate, cells: Sequence[JudgedRecord], runs: Sequence[RunRecord]) -> list[TableEntry]:
    kept, innocents = candidate.kept, candidate.innocents
    return [
        candidate.thief,
        candidate.method,
        candidate.access,
        estimate(candidate.share),
        len(candidate.cells),
        count_seeds(candidate.cells),
        count_entry(len(candidate.cells) - len(kept), candidate.cells),
        count_entry(count_claims(innocents), innocents) if innocents else None,
        max(cell.verdict.level for cell in candidate.cells),
        largest_fall(runs, candidate.method),
        mean(embed_seconds(cells)),
        mean_seconds(cells, "extract"),
    ]
