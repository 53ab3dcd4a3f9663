"""The activation profile of the owner, and what embedding and extraction take."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from amb.report.figures.style import COLOURS, label, legend, panels
from amb.report.figures.subjects import require, subjects
from amb.results.aggregate import embed_seconds
from amb.results.records import CellRecord
from amb.results.result_set import ResultSet
from amb.results.run_records import ProfileRecord

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


def profile(results: ResultSet) -> Figure:
    """A panel for each owner whose profile a run has recorded, the latest of them."""
    found = {run.place: run.profile for run in results.runs if run.profile}
    require(found, "activation profile")
    figure, axes = panels(len(found), 2.5)
    for panel, (name, figures) in zip(axes, found.items(), strict=True):
        _draw_profile(panel, figures)
        panel.set_title(label(name))
    return figure


def timing(results: ResultSet) -> Figure:
    """Embed and extract seconds of each method."""
    found = {name: taken for name, cells in subjects(results).items() if any((taken := _find_seconds(cells)).values())}
    require(found, "times")
    figure, (axes,) = panels(1, 0.9 + 0.45 * len(found))
    for index, step in enumerate(("embed", "extract")):
        _draw_times(axes, step, [taken[step] for taken in found.values()], index)
    for row, name in enumerate(found):
        axes.text(0.01, row - 0.22, label(name), transform=axes.get_yaxis_transform(), fontsize=7, va="bottom")
    axes.set(xscale="log", xlabel="seconds", ylim=(len(found) - 0.5, -0.55), yticks=[])
    axes.spines["left"].set_visible(False)
    axes.xaxis.set_major_formatter("{x:g}")
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
    return figure


def _draw_profile(axes: Axes, profile: ProfileRecord) -> None:
    from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

    blocks, block = range(len(profile.top)), profile.block
    axes.plot(blocks, profile.top, marker="o", color=COLOURS[1], label="mean of the top 5")
    axes.plot(blocks, profile.median, marker="s", color=COLOURS[2], linestyle="-.", label="median")
    axes.axvline(block, color="0.4", linestyle="--", linewidth=0.8, label=f"embed at block {block}")
    axes.set(xlabel="block", ylabel="|activation|", yscale="log")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter(NullFormatter())
    legend(axes)


def _find_seconds(cells: Sequence[CellRecord]) -> dict[str, list[float]]:
    """Embedding counts once a seed; what took no measurable time has no place on a logarithmic axis."""
    extract = [cell.seconds.get("extract") for cell in cells]
    return {"embed": [each for each in embed_seconds(cells) if each], "extract": [each for each in extract if each]}


def _draw_times(axes: Axes, step: str, taken: Sequence[Sequence[float]], index: int) -> None:
    rows = [(row + 0.24 * index - 0.05, seconds) for row, seconds in enumerate(taken) if seconds]
    colour, marker = COLOURS[index + 1], "os"[index]
    means = [sum(seconds) / len(seconds) for _, seconds in rows]
    axes.plot(means, [row for row, _ in rows], linestyle="none", marker=marker, color=colour, label=step)
    axes.hlines(
        [row for row, _ in rows], [min(s) for _, s in rows], [max(s) for _, s in rows], color=colour, linewidth=1
    )
