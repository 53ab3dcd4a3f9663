"""Readings of two methods on the same suspects, paired; and what is left out of the pairs, and why."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from amb.results.aggregate import group_by
from amb.results.records import CellRecord, JudgedRecord


@dataclass(frozen=True)
class ReadingPair:
    """A suspect at one seed, as two methods read it."""

    first: CellRecord
    second: CellRecord

    @property
    def claims(self) -> tuple[bool, bool]:
        """Whether each of them claims it; what a method skipped it does not claim."""
        return _claims(self.first), _claims(self.second)

    @property
    def source(self) -> str:
        """What suspects are alike by: the family of attacks on the marked model, the model that an innocent one came from."""
        return self.first.family or "unattacked" if self.first.kind == "positive" else self.first.origin


@dataclass(frozen=True)
class Pairing:
    """All that two methods were read on of one kind of suspects."""

    judged: list[ReadingPair] = field(default_factory=list)
    """Both have a verdict, and neither model is destroyed."""
    skipped: list[ReadingPair] = field(default_factory=list)
    """One of the methods was skipped, and the other has a verdict."""
    destroyed: list[ReadingPair] = field(default_factory=list)
    """The attack destroyed the model of one of them, or of both: it counts for nobody."""
    unread: list[ReadingPair] = field(default_factory=list)
    """One of them failed, or both have no verdict."""
    alone: list[CellRecord] = field(default_factory=list)
    """Cells of one method that the other has not."""


def pair_methods(cells: Iterable[CellRecord], first: str, second: str) -> Pairing:
    """Pair the cells of two methods, by canonical spec, by kind, suspect, attack and seed."""
    questions = group_by(
        (cell for cell in cells if cell.method in (first, second)),
        lambda cell: (cell.suite, cell.owner, cell.kind, cell.suspect, cell.attack, cell.seed),
    )
    found = Pairing()
    for asked in questions.values():
        answers = {cell.method: cell for cell in asked}
        if len(answers) < 2:
            found.alone.append(asked[0])
            continue
        pair = ReadingPair(answers[first], answers[second])
        _choose_place(found, pair).append(pair)
    return found


def cluster_claims(pairs: Sequence[ReadingPair], name: Callable[[ReadingPair], str]) -> list[list[tuple[bool, bool]]]:
    """The claims of pairs, those of one name together."""
    return [[pair.claims for pair in each] for each in group_by(pairs, name).values()]


def _choose_place(found: Pairing, pair: ReadingPair) -> list[ReadingPair]:
    both = (pair.first, pair.second)
    statuses = {cell.status for cell in both}
    if any(cell.destroyed for cell in both):
        return found.destroyed
    if "failed" in statuses or not any(isinstance(cell, JudgedRecord) for cell in both):
        return found.unread
    return found.judged if all(isinstance(cell, JudgedRecord) for cell in both) else found.skipped


def _claims(cell: CellRecord) -> bool:
    return isinstance(cell, JudgedRecord) and cell.claim
