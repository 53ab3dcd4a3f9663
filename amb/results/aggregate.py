"""Figures over many cells: groups, counts, shares, and means over seeds with intervals; whatever is averaged is averaged here."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import TYPE_CHECKING, TypeVar

from amb.results.records import CellRecord, JudgedRecord

if TYPE_CHECKING:
    from amb.evaluation.intervals import Estimate

T = TypeVar("T")
K = TypeVar("K", bound=Hashable)
C = TypeVar("C", bound=CellRecord)


# Which cells


def group_by(items: Iterable[T], key: Callable[[T], K]) -> dict[K, list[T]]:
    """Items by key, in the order in which the keys come."""
    groups: dict[K, list[T]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return groups


def by_method(cells: Iterable[C]) -> dict[str, list[C]]:
    """Cells by the canonical spec of their method."""
    return group_by(cells, lambda cell: cell.method)


def by_suspect(cells: Iterable[C]) -> dict[str, list[C]]:
    """Cells by suspect, whatever the seed."""
    return group_by(cells, lambda cell: cell.suspect)


def by_origin(cells: Iterable[C]) -> dict[str, list[C]]:
    """Cells by the model that their suspects were made from."""
    return group_by(cells, lambda cell: cell.origin)


def judged(cells: Iterable[CellRecord]) -> list[JudgedRecord]:
    """The cells that have a verdict."""
    return [cell for cell in cells if isinstance(cell, JudgedRecord)]


def usable(cells: Iterable[C]) -> list[C]:
    """Those that kept their utility: a destroyed model counts neither for nor against robustness."""
    return [cell for cell in cells if not cell.destroyed]


def positives(cells: Iterable[C]) -> list[C]:
    """Suspects that were derived from the embedded model, itself among them."""
    return [cell for cell in cells if cell.kind == "positive"]


def unattacked(cells: Iterable[C]) -> list[C]:
    """The embedded model as it is: the control."""
    return [cell for cell in positives(cells) if not cell.is_attacked]


def attacked(cells: Iterable[C]) -> list[C]:
    """Positive suspects that an attack made."""
    return [cell for cell in positives(cells) if cell.is_attacked]


def negatives(cells: Iterable[C]) -> list[C]:
    """Innocent models, siblings among them, forgeries not."""
    return [cell for cell in cells if cell.kind == "negative"]


def independent(cells: Iterable[C]) -> list[C]:
    """Innocent models that do not come from the owner's own."""
    return [cell for cell in negatives(cells) if not cell.sibling]


def siblings(cells: Iterable[C]) -> list[C]:
    """Innocent models that come from the owner's own, unmarked one."""
    return [cell for cell in negatives(cells) if cell.sibling]


def forged(cells: Iterable[C]) -> list[C]:
    """Innocent models read with a key that was made up for them."""
    return [cell for cell in cells if cell.kind == "forged"]


# How many


def count_claims(cells: Iterable[JudgedRecord]) -> int:
    """Cells whose verdict is that the suspect is the owner's."""
    return sum(cell.claim for cell in cells)


def count_seeds(cells: Iterable[CellRecord]) -> int:
    """Different seeds."""
    return len({cell.seed for cell in cells})


def count_suspects(cells: Iterable[CellRecord]) -> int:
    """Different suspects."""
    return len({cell.suspect for cell in cells})


def count_origins(cells: Iterable[CellRecord]) -> int:
    """Different models that suspects were made from."""
    return len({cell.origin for cell in cells})


def fewest_negatives(cells: Sequence[JudgedRecord]) -> int:
    """That a verdict rests on: of the positives where there are any, for forged keys have negatives of their own."""
    return min(cell.verdict.n_negatives for cell in positives(cells) or cells)


# Means


def mean(values: Iterable[float | None]) -> float | None:
    """Mean of what is known; None where nothing is."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def average_over_seeds(values: Iterable[float | None]) -> Estimate | None:
    """Mean of what is known with Student's interval over seeds; None where nothing is."""
    from amb.evaluation.intervals import mean_over_seeds

    known = [value for value in values if value is not None]
    return mean_over_seeds(known) if known else None


def average_rate(cells: Iterable[CellRecord], tau: int | None = None) -> Estimate | None:
    """Mean R over seeds with its interval, at the cells' own tau or another; None where no cell has a verdict.

    All cells of a seed are one cluster, whatever the number of suspects in the group.
    """
    from amb.evaluation.intervals import rate_over_seeds

    seeds = group_by(judged(cells), lambda cell: cell.seed)
    if not seeds:
        return None
    detected = [sum(_count_detected(cell, tau) for cell in each) for each in seeds.values()]
    trials = [sum(cell.verdict.n_trials for cell in each) for each in seeds.values()]
    return rate_over_seeds(detected, trials)


def average_curve(cells: Iterable[JudgedRecord]) -> list[float]:
    """Mean R(0), R(1), ... of cells that were read with as many symbols."""
    return [sum(rates) / len(rates) for rates in zip(*(cell.verdict.curve for cell in cells), strict=False)]


def average_suspects(cells: Iterable[C], value: Callable[[C], float | None]) -> dict[str, float]:
    """Of each suspect that has a value, its mean over seeds."""
    found = {name: mean(map(value, each)) for name, each in by_suspect(cells).items()}
    return {name: each for name, each in found.items() if each is not None}


def suspect_rates(cells: Iterable[JudgedRecord]) -> dict[str, float]:
    """R of each suspect, its mean over seeds."""
    return average_suspects(cells, lambda cell: cell.rate)


def mean_seconds(cells: Iterable[CellRecord], step: str) -> float | None:
    """What `embed`, `attack` or `extract` took, over the cells that say it."""
    return mean(cell.seconds.get(step) for cell in cells)


def embed_seconds(cells: Iterable[CellRecord]) -> list[float]:
    """What embedding took, once a seed: all cells of a seed are read with one key."""
    by_seed = {cell.seed: cell.seconds.get("embed") for cell in cells}
    return [each for each in by_seed.values() if each is not None]


def highest_rate(cells: Iterable[JudgedRecord]) -> float | None:
    """The highest R; None where there are no cells."""
    return max((cell.rate for cell in cells), default=None)


# Shares and ranks


def share_of(cells: Sequence[JudgedRecord], holds: Callable[[JudgedRecord], bool]) -> Estimate | None:
    """Share of cells for which something holds, with Clopper-Pearson's interval; None where there are none."""
    from amb.evaluation.intervals import Estimate, clopper_pearson

    if not cells:
        return None
    hits = sum(holds(cell) for cell in cells)
    return Estimate(hits / len(cells), *clopper_pearson(hits, len(cells)), len(cells))


def share_claimed(cells: Sequence[JudgedRecord]) -> Estimate | None:
    """Share of cells that are owned."""
    return share_of(cells, lambda cell: cell.claim)


def average_shares(shares: Sequence[float]) -> Estimate | None:
    """Mean of shares with Clopper-Pearson's interval at as many draws as there are shares; None where there are none."""
    from amb.evaluation.intervals import Estimate, clopper_pearson_lower, clopper_pearson_upper

    if not shares:
        return None
    n, value = len(shares), sum(shares) / len(shares)
    low, high = clopper_pearson_lower(value * n, n, 0.025), clopper_pearson_upper(value * n, n, 0.025)
    return Estimate(value, float(low), float(high), n)


def share_of_suspects_claimed(cells: Iterable[JudgedRecord]) -> Estimate | None:
    """Share of suspects that are owned, each with its share of seeds; Clopper-Pearson over suspects."""
    return average_shares(list(average_suspects(cells, lambda cell: float(cell.claim)).values()))


def rank_suspects(positive: Iterable[JudgedRecord], negative: Iterable[JudgedRecord]) -> Estimate | None:
    """AUC over suspects, each with its mean R over seeds; None where one side is empty."""
    from amb.evaluation.separation import auc

    above, below = list(suspect_rates(positive).values()), list(suspect_rates(negative).values())
    return auc(above, below) if above and below else None


def _count_detected(cell: JudgedRecord, tau: int | None) -> int:
    """Trials detected at tau, or at the cell's own."""
    return round(cell.rate_at(tau) * cell.verdict.n_trials)
