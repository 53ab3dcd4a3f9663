"""How figures look: column width, 8 pt, the colours of Okabe and Ito, fonts inside the file, text taken literally."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from html import escape
from typing import TYPE_CHECKING, Any, Final

from amb.errors import printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH: Final = 3.3
"""Inches, a column of a two-column paper."""
COLOURS: Final = ("#000000", "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
"""Okabe and Ito 2008, less the yellow, which nobody sees on white."""
DASHES: Final = ("-", "--", "-.", ":")
MARKERS: Final = ("o", "s", "^", "D", "v", "P", "X")
_FONT: Final = "DejaVu Sans"  # comes with matplotlib, so the same file comes out everywhere
_LONGEST: Final = 76
_LINE: Final = 38
_RULES: Final = {
    "font.family": _FONT,
    "font.size": 8,
    "axes.titlesize": 8,
    "legend.fontsize": 7,
    "legend.frameon": False,
    "legend.handlelength": 2.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "lines.linewidth": 1.2,
    "lines.markersize": 3.5,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "pdf.fonttype": 42,
    "svg.fonttype": "path",
    "svg.hashsalt": "amb",
    "text.parse_math": False,  # a `$` in a name is a `$`
}


@contextmanager
def styled() -> Iterator[None]:
    """Matplotlib with these rules alone, whatever the user's own file of rules says."""
    import matplotlib as mpl

    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(_RULES)
        yield


def panels(n: int, height: float) -> tuple[Figure, list[Axes]]:
    """A figure of n panels above each other, each `height` inches."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, n * height), layout="constrained")
    return figure, list(figure.subplots(n, squeeze=False)[:, 0])


def look(index: int, *, dashed: bool = False) -> dict[str, Any]:
    """Colour, marker and dashes of a series: no two of the first 28 look alike, and none rests on colour alone."""
    turn = index // len(COLOURS)
    return {
        "color": COLOURS[index % len(COLOURS)],
        "marker": MARKERS[(index + turn) % len(MARKERS)],
        "linestyle": DASHES[(turn + dashed) % len(DASHES)],
    }


def legend(axes: Axes) -> None:
    """The legend under the panel, left to right as long as entries are short."""
    from matplotlib.transforms import ScaledTranslation

    handles, labels = axes.get_legend_handles_labels()
    if not handles:
        return
    longest = max(len(line) for label in labels for line in label.split("\n"))
    n_columns = 1 if longest > 22 else 2 if longest > 13 else 3
    below = axes.transAxes + ScaledTranslation(0, -0.38, axes.figure.dpi_scale_trans)  # inches: ticks and their label
    where = {"loc": "upper center", "bbox_to_anchor": (0.45, 0), "bbox_transform": below}
    axes.legend(ncols=n_columns, columnspacing=1.2, **where)


def label(name: str) -> str:
    """A stranger's name as a legend can show it: on two lines at most, with signs that the font has."""
    text = printable(name)
    if len(text) > _LONGEST:
        half = _LONGEST // 2
        text = f"{text[: half - 1]}…{text[-half:]}"
    known = _list_signs()
    text = "".join(sign if ord(sign) in known else "□" for sign in text)
    text = "\n".join(text[at : at + _LINE] for at in range(0, len(text), _LINE))
    return f" {text}" if text.startswith("_") else text  # matplotlib hides a label with an underscore in front


def as_svg(figure: Figure, name: str, title: str, description: str) -> str:
    """The `<svg>` element alone, with ids of its own and with alternative text."""
    import io

    file = io.StringIO()
    with styled():
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = re.sub(r"<!--.*?-->|<metadata>.*?</metadata>", "", file.getvalue(), flags=re.DOTALL)
    text = re.sub(r'\b(id=")|(href="#)|(url\(#)', lambda found: f"{found.group()}{name}-", text[text.index("<svg") :])
    text = re.sub(r"\n\s*", "\n", text)
    texts = (
        f'<title id="{name}-title">{_escape_xml(title)}</title><desc id="{name}-desc">{_escape_xml(description)}</desc>'
    )
    head, _, body = text.partition(">")
    return f'{head} role="img" aria-labelledby="{name}-title {name}-desc">{texts}{body}'.strip()


def _escape_xml(text: str) -> str:
    return escape(printable(text))


@cache
def _list_signs() -> frozenset[int]:
    from matplotlib.font_manager import findfont, get_font

    return frozenset(get_font(findfont(_FONT)).get_charmap())
