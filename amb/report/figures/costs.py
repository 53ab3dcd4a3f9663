"""The activation profile of the owner, and what embedding and extraction take."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from amb.report.figures.style import COLOURS, label, legend, panels
from amb.report.figures.subjects import needed, subjects
from amb.report.layouts.cells import Cell

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PROFILE_SHOWS: Final = (
    "By block of the owner: the mean over images of the 5 largest |activation|, and of the median |activation|. "
    "Dashed line: the block that methods embed at unless they are told another (the paper's Fig. 2)."
)
TIMING_SHOWS: Final = (
    "Seconds that embedding took (once a seed) and extraction (once a suspect), as measured when they were computed. "
    "Mark: mean; line: from the least to the most. The axis is logarithmic."
)


def profile(document: Mapping[str, Any]) -> Figure:
    """A panel for each owner whose profile a run has recorded, the latest of them."""
    found = {f"{run['suite']} ({run['owner']})": run["profile"] for run in document["runs"] if run.get("profile")}
    needed(found, "activation profile")
    figure, axes = panels(len(found), 2.5)
    for panel, (name, figures) in zip(axes, found.items(), strict=True):
        _profile(panel, figures)
        panel.set_title(label(name))
    return figure


def timing(document: Mapping[str, Any]) -> Figure:
    """Embed and extract seconds of each method."""
    found = {name: taken for name, cells in subjects(document).items() if any((taken := _seconds(cells)).values())}
    needed(found, "times")
    figure, (axes,) = panels(1, 0.9 + 0.45 * len(found))
    for index, step in enumerate(("embed", "extract")):
        _times(axes, step, [taken[step] for taken in found.values()], index)
    for row, name in enumerate(found):
        axes.text(0.01, row - 0.22, label(name), transform=axes.get_yaxis_transform(), fontsize=7, va="bottom")
    axes.set(xscale="log", xlabel="seconds", ylim=(len(found) - 0.5, -0.55), yticks=[])
    axes.spines["left"].set_visible(False)
    axes.xaxis.set_major_formatter("{x:g}")
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
    return figure


def _profile(axes: Axes, figures: Mapping[str, Any]) -> None:
    from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

    blocks = range(len(figures["top"]))
    axes.plot(blocks, figures["top"], marker="o", color=COLOURS[1], label="mean of the top 5")
    axes.plot(blocks, figures["median"], marker="s", color=COLOURS[2], linestyle="-.", label="median")
    axes.axvline(
        figures["block"], color="0.4", linestyle="--", linewidth=0.8, label=f"embed at block {figures['block']}"
    )
    axes.set(xlabel="block", ylabel="|activation|", yscale="log")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter(NullFormatter())
    legend(axes)


def _seconds(cells: Sequence[Cell]) -> dict[str, list[float]]:
    """Embedding counts once a seed; what took no measurable time has no place on a logarithmic axis."""
    embed = {cell["seed"]: cell["seconds"].get("embed") for cell in cells}
    extract = [cell["seconds"].get("extract") for cell in cells]
    return {"embed": [each for each in embed.values() if each], "extract": [each for each in extract if each]}


def _times(axes: Axes, step: str, taken: Sequence[Sequence[float]], index: int) -> None:
    rows = [(row + 0.24 * index - 0.05, seconds) for row, seconds in enumerate(taken) if seconds]
    colour, marker = COLOURS[index + 1], "os"[index]
    means = [sum(seconds) / len(seconds) for _, seconds in rows]
    axes.plot(means, [row for row, _ in rows], linestyle="none", marker=marker, color=colour, label=step)
    axes.hlines(
        [row for row, _ in rows], [min(s) for _, s in rows], [max(s) for _, s in rows], color=colour, linewidth=1
    )
