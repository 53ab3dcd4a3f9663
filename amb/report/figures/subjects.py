"""What figures are about: the cells of each method and owner, grouped so that a reader can tell them apart."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from amb.errors import MissingError
from amb.results.aggregate import forged, group_by, judged, mean, negatives, positives, usable
from amb.results.records import JudgedRecord
from amb.results.result_set import ResultSet

MOST_SUBJECTS: Final = 12
"""Methods that one figure holds."""
_FAMILIES: Final = 5
_CLASSES: Final = 3
_CONTROL: Final = "unattacked"


def subjects(results: ResultSet) -> dict[str, list[JudgedRecord]]:
    """Judged cells by method, and by owner where there are several: figures of two models are never averaged."""
    known = judged(results.cells)
    several = len({(cell.suite, cell.owner) for cell in known}) > 1

    def name(cell: JudgedRecord) -> str:
        return f"{cell.method} · {cell.place}" if several else cell.method

    return group_by(known, name)


def require(found: Mapping[str, Any], what: str) -> None:
    """Raises MissingError where there is nothing to draw."""
    if not found:
        raise MissingError(f"There is nothing to draw: these results hold no {what}. Choose others: --sweep, --run.")


def group_derived(cells: Sequence[JudgedRecord]) -> dict[str, list[JudgedRecord]]:
    """The control, then the families of attacks on usable suspects: where there are many, the weakest by name and the rest together."""
    groups = group_by(usable(positives(cells)), lambda cell: cell.family or _CONTROL)
    control = {name: groups.pop(name) for name in (_CONTROL,) if name in groups}
    return {**control, **_gather_groups(groups, _FAMILIES, "other attacks", lambda rate: rate)}


def group_innocents(cells: Sequence[JudgedRecord]) -> dict[str, list[JudgedRecord]]:
    """Classes of innocents: where there are many, those that read highest by name and the rest together; forgeries."""
    groups = group_by(negatives(cells), lambda cell: cell.group or cell.shown_kind)
    made_up = forged(cells)
    gathered = _gather_groups(groups, _CLASSES, "other innocents", lambda rate: -rate)
    return {**gathered, **({"forged keys": made_up} if made_up else {})}


def _gather_groups(
    groups: Mapping[str, list[JudgedRecord]], most: int, rest: str, rank: Callable[[float], float]
) -> dict[str, list[JudgedRecord]]:
    """The first `most` groups by rank of their mean rate, and all others as one."""
    ordered = sorted(groups, key=lambda name: rank(mean(cell.rate for cell in groups[name]) or 0.0))
    if len(ordered) <= most:
        return dict(groups)
    others = ordered[most - 1 :]
    named = {name: groups[name] for name in ordered[: most - 1]}
    return {**named, f"{rest} ({len(others)})": [cell for name in others for cell in groups[name]]}
