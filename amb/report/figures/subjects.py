"""What figures are about: the cells of each method and owner, grouped so that a reader can tell them apart."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from amb.errors import MissingError
from amb.report.layouts.cells import Cell, group, judged, kind_of, usable

MOST_SUBJECTS: Final = 12
"""Methods that one figure holds."""
_FAMILIES: Final = 5
_CLASSES: Final = 3


def subjects(document: Mapping[str, Any]) -> dict[str, list[Cell]]:
    """Judged cells by method, and by owner where there are several: figures of two models are never averaged."""
    known = judged(document["cells"])
    several = len({(cell["suite"], cell["owner"]) for cell in known}) > 1

    def name(cell: Cell) -> str:
        return f"{cell['method']} · {cell['suite']} ({cell['owner']})" if several else str(cell["method"])

    return group(known, name)


def needed(found: Mapping[str, Any], what: str) -> None:
    """Raises MissingError where there is nothing to draw."""
    if not found:
        raise MissingError(f"There is nothing to draw: these results hold no {what}. Choose others: --sweep, --run.")


def positives(cells: Iterable[Cell]) -> list[Cell]:
    """Suspects that were derived from the embedded model."""
    return [cell for cell in cells if cell["kind"] == "positive"]


def negatives(cells: Iterable[Cell]) -> list[Cell]:
    """Innocent models, siblings among them, forgeries not."""
    return [cell for cell in cells if cell["kind"] == "negative"]


def by_suspect(cells: Iterable[Cell], value: Callable[[Cell], float | None]) -> dict[str, float]:
    """The mean over seeds of each suspect that has a value."""
    known = [(str(cell["suspect"]), found) for cell in cells if (found := value(cell)) is not None]
    members: dict[str, list[float]] = {}
    for name, found in known:
        members.setdefault(name, []).append(found)
    return {name: sum(values) / len(values) for name, values in members.items()}


def rates(cells: Iterable[Cell]) -> dict[str, float]:
    """R of each suspect, its mean over seeds."""
    return by_suspect(cells, lambda cell: float(cell["detection_rate"]))


def derived(cells: Iterable[Cell]) -> dict[str, list[Cell]]:
    """The control, then the families of attacks on usable suspects: where there are many, the weakest by name and the rest together."""
    groups = group(usable(positives(cells)), family)
    control = {name: groups.pop(name) for name in ("unattacked",) if name in groups}
    return {**control, **_gathered(groups, _FAMILIES, "other attacks", lambda rate: rate)}


def innocent(cells: Iterable[Cell]) -> dict[str, list[Cell]]:
    """Classes of innocents: where there are many, those that read highest by name and the rest together; forgeries."""
    cells = list(cells)
    groups = group(negatives(cells), lambda cell: str(cell.get("group") or kind_of(cell)))
    forged = [cell for cell in cells if cell["kind"] == "forged"]
    gathered = _gathered(groups, _CLASSES, "other innocents", lambda rate: -rate)
    return {**gathered, **({"forged keys": forged} if forged else {})}


def family(cell: Cell) -> str:
    """`unattacked`, or the families of attacks in the chain; the attacks' names where none is recorded."""
    if cell["attack"] == "none":
        return "unattacked"
    names = [part.partition(":")[0] for part in str(cell["attack"]).split("+")]
    return str(cell.get("group") or "+".join(names))


def _gathered(
    groups: Mapping[str, list[Cell]], most: int, rest: str, rank: Callable[[float], float]
) -> dict[str, list[Cell]]:
    """The first `most` groups by rank of their mean rate, and all others as one."""
    ordered = sorted(groups, key=lambda name: rank(_mean(groups[name])))
    if len(ordered) <= most:
        return {name: groups[name] for name in groups}
    others = ordered[most - 1 :]
    named = {name: groups[name] for name in ordered[: most - 1]}
    return {**named, f"{rest} ({len(others)})": [cell for name in others for cell in groups[name]]}


def _mean(cells: Sequence[Cell]) -> float:
    return sum(float(cell["detection_rate"]) for cell in cells) / len(cells)
