"""Which attacks remove a method's claim and leave a model that is worth having: how much of its use a thief keeps."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from amb.results.aggregate import (
    average_over_seeds,
    by_suspect,
    count_claims,
    judged,
    mean,
    mean_seconds,
    positives,
    usable,
)
from amb.results.records import CellRecord, JudgedRecord
from amb.results.thieves import Thieves

if TYPE_CHECKING:
    from amb.evaluation.intervals import Estimate


@dataclass(frozen=True)
class Removal:
    """An attack after which a method claims at fewer than half of the seeds, and the model is usable."""

    suspect: str
    """The attack as tables name it; `unattacked` where nothing has to be removed."""
    cells: Sequence[JudgedRecord]
    """The usable models that it made, one a seed."""

    @property
    def kept(self) -> float | None:
        """Share of the protected model's utility that the thief keeps, mean over seeds; None where it is not known."""
        return mean(self._shares())

    @property
    def kept_over_seeds(self) -> Estimate | None:
        """The same with Student's interval over seeds."""
        return average_over_seeds(self._shares())

    def _shares(self) -> list[float]:
        return [1 - cell.utility_drop for cell in self.cells if cell.utility_drop is not None]

    def _rank(self) -> tuple[float, int, float]:
        """What a thief would take first: the most utility, then the fewest steps, then the least time."""
        steps = len(self.cells[0].attack_names) if self.cells[0].is_attacked else 0
        return (
            -(self.kept if self.kept is not None else float("-inf")),
            steps,
            mean_seconds(self.cells, "attack") or 0.0,
        )


def uninformed(cells: Iterable[CellRecord], thieves: Thieves) -> list[CellRecord]:
    """Positive suspects of a thief who has the model alone, and the control."""
    return [cell for cell in positives(cells) if thieves.threat(cell) in ("unattacked", "removal")]


def list_removals(cells: Iterable[CellRecord]) -> list[Removal]:
    """The attacks of one method that remove its claim, the thief's first choice first.

    An attack that destroyed the model at half of its seeds or more removes nothing.
    """
    found = []
    for suspect, each in by_suspect(judged(positives(cells))).items():
        kept = usable(each)
        if 2 * len(kept) > len(each) and 2 * count_claims(kept) < len(kept):
            found.append(Removal(suspect, kept))
    return sorted(found, key=Removal._rank)  # noqa: SLF001 (its own)


def least_removal(cells: Iterable[CellRecord], thieves: Thieves) -> Removal | None:
    """What a thief does who knows nothing of the method: the attack that removes the claim and keeps most utility."""
    return next(iter(list_removals(uninformed(cells, thieves))), None)
