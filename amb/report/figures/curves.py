"""The detection curve: R(τ) by τ with its interval, of suspects and innocents."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from amb.report.figures.style import label, legend, look, panels
from amb.report.figures.subjects import group_derived, group_innocents, require, subjects
from amb.results.aggregate import average_rate
from amb.results.records import JudgedRecord
from amb.results.result_set import ResultSet

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SHOWS: Final = (
    "R(τ), the share of trials with at most τ wrong symbols, by τ. Solid: the unattacked model and its attacked "
    "derivatives that are not destroyed, by family of attack; dashed: innocent models by class. Bands: 95 % interval of Korn and Graubard, "
    "which is Clopper-Pearson over trials with a seed as the cluster. Dotted line: the τ in use. Where there are many "
    "families or classes, the weakest families and the classes that read highest stand by name, all others together."
)


def detection_curve(results: ResultSet) -> Figure:
    """A panel for each method."""
    found = subjects(results)
    require(found, "judged cells")
    figure, axes = panels(len(found), 3.4)
    for panel, (name, cells) in zip(axes, found.items(), strict=True):
        _draw_panel(panel, cells)
        panel.set_title(label(name))
    return figure


def _draw_panel(axes: Axes, cells: Sequence[JudgedRecord]) -> None:
    from matplotlib.ticker import MaxNLocator

    groups = [(name, members, False) for name, members in group_derived(cells).items()]
    groups += [(name, members, True) for name, members in group_innocents(cells).items()]
    for index, (name, members, dashed) in enumerate(groups):
        _draw_curve(axes, name, members, look(index, dashed=dashed))
    axes.axvline(cells[0].verdict.tau, color="0.4", linestyle=":", linewidth=0.8)
    axes.set(xlabel="τ: wrong symbols allowed", ylabel="R(τ)", ylim=(-0.03, 1.03))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    legend(axes)


def _draw_curve(axes: Axes, name: str, cells: Sequence[JudgedRecord], style: Mapping[str, Any]) -> None:
    taus = range(max(len(cell.verdict.curve) for cell in cells))
    rates = [rate for tau in taus if (rate := average_rate(cells, tau))]
    every = max(1, len(taus) // 8)
    axes.plot(taus, [rate.value for rate in rates], label=label(name), markevery=every, **style)
    lows, highs = [rate.low for rate in rates], [rate.high for rate in rates]
    axes.fill_between(taus, lows, highs, color=style["color"], alpha=0.12, linewidth=0)
