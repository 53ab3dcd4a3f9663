"""Figures over suspects: robustness against utility with the thief's front, and the ROC of each method."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from amb.evaluation.primary_utility import primary_utility
from amb.evaluation.separation import auc
from amb.report.figures.style import label, legend, look, panels
from amb.report.figures.subjects import require, subjects
from amb.results.aggregate import average_suspects, mean, negatives, positives, suspect_rates, usable
from amb.results.records import JudgedRecord
from amb.results.removals import least_removal
from amb.results.result_set import ResultSet

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PARETO_SHOWS: Final = (
    "Each mark is a positive suspect, means over seeds: the utility it kept and its R(τ). Hollow: destroyed, its utility "
    "fell by more than the suite tolerates. The line is the thief's front, over usable suspects: the lowest R(τ) that an "
    "attack reached at such utility or more. The higher the line, the more robust the method. A dotted upright line, with a "
    "triangle on the axis: what a thief keeps who knows nothing of the method, by the attack that removes its claim and "
    "keeps most; a method without one lost its claim to no such attack."
)
ROC_SHOWS: Final = (
    "Usable positive suspects against all negatives, siblings included; a suspect counts once, with its mean R(τ) over "
    "seeds. AUC with Newcombe's 95 % interval. Destroyed suspects and forgeries are left out. Dotted line: chance."
)
Point = tuple[float, float, bool]
"""Utility, R and whether the suspect was destroyed."""
Measure = Callable[[JudgedRecord], float | None]
"""What a suspect is worth."""


def pareto(results: ResultSet) -> Figure:
    """Robustness × utility of positive suspects, a series for each method."""
    kept, what = _choose_measure(results)
    found = {name: points for name, cells in subjects(results).items() if (points := _find_points(cells, kept))}
    require(found, "positive suspects with a utility")
    figure, (axes,) = panels(1, 3.0)
    for index, (name, points) in enumerate(found.items()):
        _draw_series(axes, label(name), points, look(index))
    _draw_uninformed(axes, results, list(found), kept)
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


def roc(results: ResultSet) -> Figure:
    """The ROC curve of each method that has usable positives and negatives."""
    from sklearn.metrics import roc_curve

    found = {name: sides for name, cells in subjects(results).items() if all(sides := _find_sides(cells))}
    require(found, "positive and negative suspects of one method")
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


def _find_sides(cells: Sequence[JudgedRecord]) -> tuple[list[float], list[float]]:
    marked, innocents = suspect_rates(usable(positives(cells))), suspect_rates(negatives(cells))
    return list(marked.values()), list(innocents.values())


def _draw_series(axes: Axes, name: str, points: Sequence[Point], style: Mapping[str, Any]) -> None:
    dots = {"linestyle": "none", "marker": style["marker"], "color": style["color"], "clip_on": False}
    good = [point for point in points if not point[2]]
    lost = [point for point in points if point[2]]
    line = front(points)
    axes.plot(
        *_split_axes(line), color=style["color"], linestyle=style["linestyle"], drawstyle="steps-pre", linewidth=0.9
    )
    axes.plot(*_split_axes(good or lost), label=name, markerfacecolor=style["color"] if good else "none", **dots)
    if good and lost:
        axes.plot(*_split_axes(lost), markerfacecolor="none", **dots)


def _draw_uninformed(axes: Axes, results: ResultSet, names: Sequence[str], kept: Measure) -> None:
    """Where the thief stands who knows nothing of the method: a line in its colour, and a triangle on the axis."""
    cells = subjects(results)
    for index, name in enumerate(names):
        removal = least_removal(cells[name], results.thieves)
        utility = mean(map(kept, removal.cells)) if removal else None
        if utility is not None:
            colour = look(index)["color"]
            axes.axvline(utility, color=colour, linestyle=":", linewidth=0.9)
            axes.plot(utility, axes.get_ylim()[0], marker="^", color=colour, linestyle="none", clip_on=False)


def _split_axes(points: Sequence[Sequence[float]]) -> tuple[list[float], list[float]]:
    return [point[0] for point in points], [point[1] for point in points]


def _find_points(cells: Sequence[JudgedRecord], kept: Measure) -> list[Point]:
    """Utility, R and whether it was destroyed (at more than half of its seeds) of each positive suspect."""
    own = positives(cells)
    utility, read = average_suspects(own, kept), suspect_rates(own)
    lost = average_suspects(own, lambda cell: float(bool(cell.destroyed)))
    return [(utility[name], read[name], lost[name] > 0.5) for name in utility]


def _choose_measure(results: ResultSet) -> tuple[Measure, str]:
    """The share of the protected model's utility where every cell says it, else the figure itself."""
    own = [cell for cells in subjects(results).values() for cell in positives(cells)]
    if own and all(cell.utility_drop is not None for cell in own):
        return _read_kept_share, "utility kept, share of the protected model's"
    names = sorted({found[0] for cell in own if (found := primary_utility(cell.utility))})
    return _read_utility, f"utility ({', '.join(names)})"


def _read_kept_share(cell: JudgedRecord) -> float | None:
    return None if cell.utility_drop is None else 1 - cell.utility_drop


def _read_utility(cell: JudgedRecord) -> float | None:
    found = primary_utility(cell.utility)
    return found[1] if found else None
