"""Figures over suspects: robustness against utility with the thief's front, and the ROC of each method."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from amb.evaluation.primary_utility import primary_utility
from amb.evaluation.statistics import auc
from amb.report.figures.style import label, legend, look, panels
from amb.report.figures.subjects import by_suspect, needed, negatives, positives, rates, subjects
from amb.report.layouts.cells import Cell, usable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PARETO_SHOWS: Final = (
    "Each mark is a positive suspect, means over seeds: the utility it kept and its R(τ). Hollow: destroyed, its utility "
    "fell by more than the suite tolerates. The line is the thief's front, over usable suspects: the lowest R(τ) that an "
    "attack reached at such utility or more. The higher the line, the more robust the method."
)
ROC_SHOWS: Final = (
    "Usable positive suspects against all negatives, siblings included; a suspect counts once, with its mean R(τ) over "
    "seeds. AUC with Newcombe's 95 % interval. Destroyed suspects and forgeries are left out. Dotted line: chance."
)
Point = tuple[float, float, bool]


def pareto(document: Mapping[str, Any]) -> Figure:
    """Robustness × utility of positive suspects, a series for each method."""
    kept, what = _measure(document)
    found = {name: points for name, cells in subjects(document).items() if (points := _points(cells, kept))}
    needed(found, "positive suspects with a utility")
    figure, (axes,) = panels(1, 3.0)
    for index, (name, points) in enumerate(found.items()):
        _series(axes, label(name), points, look(index))
    if any(point[2] for points in found.values() for point in points):
        axes.plot([], [], linestyle="none", marker="o", color="0.4", markerfacecolor="none", label="hollow: destroyed")
    axes.set(xlabel=what, ylabel="R(τ)", ylim=(-0.04, 1.04))
    legend(axes)
    return figure


def front(points: Iterable[Point]) -> list[tuple[float, float]]:
    """Usable points that no other beats: at their utility or more none reads lower. By falling utility."""
    best: list[tuple[float, float]] = []
    for utility, rate, destroyed in sorted(points, key=lambda point: (-point[0], point[1])):
        if not destroyed and (not best or rate < best[-1][1]):
            best.append((utility, rate))
    return best


def roc(document: Mapping[str, Any]) -> Figure:
    """The ROC curve of each method that has usable positives and negatives."""
    from sklearn.metrics import roc_curve

    found = {name: sides for name, cells in subjects(document).items() if all(sides := _sides(cells))}
    needed(found, "positive and negative suspects of one method")
    figure, (axes,) = panels(1, 3.4)
    for index, (name, (marked, innocents)) in enumerate(found.items()):
        fpr, tpr, _ = roc_curve([1] * len(marked) + [0] * len(innocents), [*marked, *innocents])
        area = auc(marked, innocents)
        text = f"{label(name)}\nAUC {area.value:.2f} ({area.low:.2f}–{area.high:.2f})"
        axes.plot(fpr, tpr, label=text, clip_on=False, **look(index))
    axes.plot([0, 1], [0, 1], color="0.4", linestyle=":", linewidth=0.8)
    axes.set(xlabel="false positive rate", ylabel="true positive rate", xlim=(0, 1), ylim=(0, 1.02), aspect="equal")
    legend(axes)
    return figure


def _sides(cells: Sequence[Cell]) -> tuple[list[float], list[float]]:
    return list(rates(usable(positives(cells))).values()), list(rates(negatives(cells)).values())


def _series(axes: Axes, name: str, points: Sequence[Point], style: Mapping[str, Any]) -> None:
    dots = {"linestyle": "none", "marker": style["marker"], "color": style["color"], "clip_on": False}
    good = [point for point in points if not point[2]]
    lost = [point for point in points if point[2]]
    line = front(points)
    axes.plot(*_axes(line), color=style["color"], linestyle=style["linestyle"], drawstyle="steps-pre", linewidth=0.9)
    axes.plot(*_axes(good or lost), label=name, markerfacecolor=style["color"] if good else "none", **dots)
    if good and lost:
        axes.plot(*_axes(lost), markerfacecolor="none", **dots)


def _axes(points: Sequence[Sequence[float]]) -> tuple[list[float], list[float]]:
    return [point[0] for point in points], [point[1] for point in points]


def _points(cells: Sequence[Cell], kept: Any) -> list[Point]:
    """Utility, R and whether it was destroyed (at more than half of its seeds) of each positive suspect."""
    own = positives(cells)
    utility, read = by_suspect(own, kept), rates(own)
    lost = by_suspect(own, lambda cell: float(bool(cell.get("destroyed"))))
    return [(utility[name], read[name], lost[name] > 0.5) for name in utility]


def _measure(document: Mapping[str, Any]) -> tuple[Any, str]:
    """The share of the protected model's utility where every cell says it, else the figure itself."""
    own = [cell for cells in subjects(document).values() for cell in positives(cells)]
    if own and all(cell.get("utility_drop") is not None for cell in own):
        return (lambda cell: 1 - cell["utility_drop"]), "utility kept, share of the protected model's"
    names = sorted({found[0] for cell in own if (found := primary_utility(cell["utility"]))})
    return _read_utility, f"utility ({', '.join(names)})"


def _read_utility(cell: Cell) -> float | None:
    found = primary_utility(cell["utility"])
    return found[1] if found else None
