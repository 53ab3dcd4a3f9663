"""Figures of finished runs in the style of papers: drawn from their results, written as PNG, SVG or PDF."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from amb.errors import BadParamsError, unknown_name
from amb.report.figures import costs, curves, suspects
from amb.report.figures.style import as_svg, styled
from amb.report.figures.subjects import MOST_SUBJECTS, subjects
from amb.results.result_set import ResultSet

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class FigureKind:
    """A sort of figure: what it is called, what it shows and how that is computed."""

    title: str
    summary: str
    """What it shows, on one line."""
    shows: str
    """What stands under it: how what it shows is computed."""
    draw: Callable[[ResultSet], Figure]
    """Raises MissingError where the results hold nothing to draw."""


FIGURE_KINDS: Final[Mapping[str, FigureKind]] = {
    "detection-curve": FigureKind(
        "Detection curves",
        "R(tau) by tau with intervals, suspects and innocents",
        curves.SHOWS,
        curves.detection_curve,
    ),
    "profile": FigureKind("Activation profile", "activation profile of the owner", costs.PROFILE_SHOWS, costs.profile),
    "pareto": FigureKind(
        "Robustness and utility",
        "robustness against utility of attacked models",
        suspects.PARETO_SHOWS,
        suspects.pareto,
    ),
    "roc": FigureKind(
        "ROC over suspects", "positives against negatives, over suspects", suspects.ROC_SHOWS, suspects.roc
    ),
    "timing": FigureKind("Time of embed and extract", "seconds of embed and extract", costs.TIMING_SHOWS, costs.timing),
}
ENDINGS: Final = (".png", ".svg", ".pdf")


def draw(kind: str, results: ResultSet) -> Figure:
    """A figure of finished runs. Raises UnknownNameError, BadParamsError, MissingError."""
    if kind not in FIGURE_KINDS:
        raise unknown_name("figure", kind, FIGURE_KINDS, "`amb figure --help` shows all")
    n_subjects = len(subjects(results))
    if n_subjects > MOST_SUBJECTS:
        raise BadParamsError(
            f"A figure of {n_subjects} methods cannot be read; it takes {MOST_SUBJECTS}. Choose some: --method."
        )
    with styled():
        return FIGURE_KINDS[kind].draw(results)


def svg(figure: Figure, name: str, title: str, description: str) -> str:
    """An `<svg>` to stand in a page: `name` makes its ids unique, title and description are its alternative text."""
    return as_svg(figure, name, title, description)


def check_ending(path: Path) -> None:
    """Raises BadParamsError for a file that no figure can be written to."""
    if path.suffix.lower() not in ENDINGS:
        raise BadParamsError(f"A figure cannot go to '{path.name}': the file has to end in {', '.join(ENDINGS)}.")


def save(figure: Figure, path: Path) -> None:
    """Write the file that its ending names; the same figure gives the same bytes. Raises BadParamsError."""
    check_ending(path)
    undated = {".png": None, ".svg": {"Date": None}, ".pdf": {"CreationDate": None}}[path.suffix.lower()]
    try:
        with styled():
            figure.savefig(path, dpi=300, metadata=undated)
    except OSError as error:
        raise BadParamsError(f"The figure cannot go to {path}: {error.strerror}. Give another file: -o.") from None
