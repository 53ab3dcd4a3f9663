"""The picture that the page begins with: each method on each attack and each innocent model, a field with a sign and a colour."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from amb.errors import printable
from amb.report.entries import count_entry
from amb.report.figures.subjects import MOST_SUBJECTS
from amb.results.aggregate import count_claims, group_by, judged, mean, usable
from amb.results.records import CellRecord
from amb.results.result_set import ResultSet

MOST_FIELDS: Final = 150
"""Fields of a method; where there are more suspects, a field stands for a family or a class of them."""
SIGNS: Final[Mapping[str, tuple[str, str]]] = {
    "claimed": ("✓", "claimed"),
    "partly": ("~", "claimed at some seeds only"),
    "missed": ("×", "missed"),
    "destroyed": ("†", "destroyed by the attack, so it does not count"),
    "silent": ("·", "innocent and not claimed"),
    "false": ("!", "innocent and claimed: a false claim"),
    "none": ("–", "not judged: skipped or failed"),
}
"""Sign and meaning of each outcome."""


@dataclass(frozen=True)
class Field:
    """What became of a suspect, over its seeds."""

    outcome: str
    """A key of SIGNS."""
    text: str
    """What it is, for who points at it or has it read aloud."""

    @property
    def sign(self) -> str:
        """The sign that says it without colour."""
        return SIGNS[self.outcome][0]


@dataclass(frozen=True)
class Strip:
    """Fields that belong together: a family of attacks, a class of innocent models."""

    label: str
    fields: Sequence[Field]


@dataclass(frozen=True)
class OutcomeRow:
    """A method, and what it did on attacked and on innocent models."""

    method: str
    attacked: Sequence[Strip]
    innocent: Sequence[Strip]
    verdict: str
    """The same in one line."""


@dataclass(frozen=True)
class Outcomes:
    """The picture."""

    rows: Sequence[OutcomeRow]
    signs: Sequence[tuple[str, str, str]]
    """Outcome, sign and meaning of those that occur."""
    left_out: str
    """What it does not show; empty where it shows all."""


def make_outcomes(results: ResultSet) -> Outcomes | None:
    """The picture of results; None where there is no cell."""
    found = _group_by_subject(results.cells)
    rows = [_make_row(name, cells) for name, cells in list(found.items())[:MOST_SUBJECTS]]
    there = {field.outcome for row in rows for strip in (*row.attacked, *row.innocent) for field in strip.fields}
    signs = [(name, *said) for name, said in SIGNS.items() if name in there]
    n_left = len(found) - len(rows)
    return Outcomes(rows, signs, f"{n_left} more methods stand in the tables." if n_left else "") if rows else None


def _group_by_subject(cells: Iterable[CellRecord]) -> dict[str, list[CellRecord]]:
    """Cells by method, and by owner where there are several; skipped and failed ones too."""
    cells = list(cells)
    several = len({(cell.suite, cell.owner) for cell in cells}) > 1
    return group_by(cells, lambda cell: f"{cell.method} · {cell.place}" if several else cell.method)


def _make_row(method: str, cells: Sequence[CellRecord]) -> OutcomeRow:
    marked = [cell for cell in cells if cell.kind == "positive"]
    others = [cell for cell in cells if cell.kind != "positive"]
    attacked = _make_strips(marked, lambda cell: cell.family or "unattacked", _judge_marked)
    innocent = _make_strips(others, _name_class, _judge_innocent)
    return OutcomeRow(printable(method), attacked, innocent, _describe_row(marked, others))


def _describe_row(marked: Sequence[CellRecord], others: Sequence[CellRecord]) -> str:
    kept, read = usable(judged(marked)), judged(others)
    return (
        f"claimed {count_entry(count_claims(kept), kept)} usable, and {count_entry(count_claims(read), read)} innocent"
    )


def _name_class(cell: CellRecord) -> str:
    return "forged keys" if cell.kind == "forged" else cell.group or cell.shown_kind


def _make_strips(
    cells: Sequence[CellRecord],
    family: Callable[[CellRecord], str],
    judge: Callable[[str, Sequence[CellRecord]], Field],
) -> list[Strip]:
    """A field for each suspect by family; where those are too many a field for each family, then as many as there is room for."""
    families = group_by(cells, family)
    if len({(cell.kind, cell.suspect) for cell in cells}) > MOST_FIELDS:
        fields = [judge(f"{name}, all together", members) for name, members in list(families.items())[:MOST_FIELDS]]
        more = len(families) - len(fields)
        return [Strip(f"by family; {more} more in the tables" if more else "by family", fields)]
    return [
        Strip(name, [judge(suspect, each) for suspect, each in group_by(members, lambda cell: cell.suspect).items()])
        for name, members in families.items()
    ]


def _judge_marked(suspect: str, cells: Sequence[CellRecord]) -> Field:
    known = judged(cells)
    kept = usable(known)
    if not known:
        return _refuse(suspect, cells)
    if not kept:
        return Field("destroyed", f"{suspect}: destroyed; {_say_rate(cells)}")
    n = count_claims(kept)
    outcome = "claimed" if n == len(kept) else "partly" if n else "missed"
    return Field(outcome, f"{suspect}: claimed {count_entry(n, kept)}; {_say_rate(kept)}")


def _judge_innocent(suspect: str, cells: Sequence[CellRecord]) -> Field:
    known = judged(cells)
    if not known:
        return _refuse(suspect, cells)
    n = count_claims(known)
    return Field("false" if n else "silent", f"{suspect}: claimed {count_entry(n, known)}; {_say_rate(known)}")


def _refuse(suspect: str, cells: Sequence[CellRecord]) -> Field:
    return Field("none", f"{suspect}: {cells[0].status}")


def _say_rate(cells: Sequence[CellRecord]) -> str:
    return f"R {mean(cell.rate for cell in judged(cells)) or 0.0:.2f}"
