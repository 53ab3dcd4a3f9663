"""The detection curve: R(τ) by τ with its interval, of suspects and innocents."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from amb.report.figures.style import label, legend, look, panels
from amb.report.figures.subjects import derived, innocent, needed, subjects
from amb.report.layouts.cells import Cell, rate_entry

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SHOWS: Final = (
    "R(τ), the share of trials with at most τ wrong symbols, by τ. Solid: the unattacked model and its attacked "
    "derivatives that are not destroyed, by family of attack; dashed: innocent models by class. Bands: 95 % interval of Korn and Graubard, "
    "which is Clopper-Pearson over trials with a seed as the cluster. Dotted line: the τ in use. Where there are many "
    "families or classes, the weakest families and the classes that read highest stand by name, all others together."
)


def detection_curve(document: Mapping[str, Any]) -> Figure:
    """A panel for each method."""
    found = subjects(document)
    needed(found, "judged cells")
    figure, axes = panels(len(found), 3.4)
    for panel, (name, cells) in zip(axes, found.items(), strict=True):
        _panel(panel, cells)
        panel.set_title(label(name))
    return figure


def _panel(axes: Axes, cells: Sequence[Cell]) -> None:
    from matplotlib.ticker import MaxNLocator

    groups = [(name, members, False) for name, members in derived(cells).items()]
    groups += [(name, members, True) for name, members in innocent(cells).items()]
    for index, (name, members, dashed) in enumerate(groups):
        _curve(axes, name, members, look(index, dashed=dashed))
    axes.axvline(cells[0]["tau"], color="0.4", linestyle=":", linewidth=0.8)
    axes.set(xlabel="τ: wrong symbols allowed", ylabel="R(τ)", ylim=(-0.03, 1.03))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    legend(axes)


def _curve(axes: Axes, name: str, cells: Sequence[Cell], style: Mapping[str, Any]) -> None:
    taus = range(max(len(cell["curve"]) for cell in cells))
    entries = [rate_entry(cells, tau) for tau in taus]
    rates, lows, highs = (
        [float(entry[end] or 0) for entry in entries if isinstance(entry, Mapping)] for end in ("value", "low", "high")
    )
    every = max(1, len(taus) // 8)
    axes.plot(taus, rates, label=label(name), markevery=every, **style)
    axes.fill_between(taus, lows, highs, color=style["color"], alpha=0.12, linewidth=0)
