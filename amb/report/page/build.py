"""Puts the page together: which sections a document has, and the one file that holds them."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from amb.api.interfaces import DescribeAttack
from amb.errors import MissingError, printable
from amb.report.figures import KINDS, draw, svg
from amb.report.figures.subjects import MOST_SUBJECTS, subjects
from amb.report.layouts import with_tables
from amb.report.page import provenance
from amb.report.page.attacks import attacks
from amb.report.page.sections import Picture, Section
from amb.report.page.summary import summary
from amb.report.tables import Table, tables_of
from amb.results.collect import as_collected

LARGE: Final = 300
"""Rows from which on a table is kept as data, and shown by the script as one scrolls."""
_CURVES: Final = 120
"""Suspects up to which the figures behind the detection curves stand on the page as well."""
_NOTES: Final = 5
"""Notes that stand open under a table; the others open on demand."""
_LONG: Final = 28
"""Letters from which on an entry or a header is broken over lines, wherever it has to be."""
_SIGNS: Final = re.compile(r"(?<=[,:+;/])(?=\S)")
"""Between a sign of a spec and what follows; page.js has the same for the rows that it makes."""
_NO_PROFILE: Final = (
    "No run here has recorded one: an owner without transformer blocks has none, "
    "and a run that goes on writes it with its first cell."
)
_HERE: Final = Path(__file__).parent


def sections_of(document: Mapping[str, Any], describe: DescribeAttack) -> list[Section]:
    """Every section that a run or a collected document has something for, the summary first."""
    known = as_collected(document)
    found = [
        summary(known),
        Section("run", "This run", tables=tables_of(document) if "tables" in document else ()),
        Section("tables", "Tables", tables=[*_tables(known, "summary"), *_paper(known)]),
        Section(
            "curves",
            "Detection curves",
            (KINDS["detection-curve"].shows,),
            pictures=_curves(known),
            tables=_curve_tables(known),
        ),
        _section("robustness", "Robustness and utility", known, "pareto", _tables(known, "robustness")),
        _section("suspects", "Telling suspects apart", known, "roc", _tables(known, "suspects")),
        Section("innocents", "Innocent models by class", tables=_tables(known, "negatives")),
        _profile(known),
        _section(
            "time",
            "Time and memory",
            known,
            "timing",
            [*_tables(known, "paper-table3"), provenance.time_and_memory(known)],
        ),
        attacks(known, describe),
        provenance.cells(known),
        provenance.how(),
        provenance.provenance(known),
    ]
    return [section for section in found if not section.empty]


def page(title: str, sections: Sequence[Section]) -> str:
    """The page as text: styles, script, figures and data inside; every value is escaped, control characters are shown."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    files = FileSystemLoader(_HERE)
    made = Environment(loader=files, autoescape=True, finalize=_shown, undefined=StrictUndefined, trim_blocks=True)
    made.globals.update(large=LARGE, few=_NOTES, classes_of=_classes, data=_data, broken=_broken, safe=Markup)
    style, script = (Markup((_HERE / name).read_text(encoding="utf-8")) for name in ("page.css", "page.js"))  # noqa: S704
    return made.get_template("page.html").render(
        title=title, sections=sections, style=style, script=script, digest=_digest(script)
    )


def _shown(value: Any) -> Any:
    """What a template prints: a stranger's text on one line, our own markup as it is."""
    return printable(value) if type(value) is str else value


def _broken(text: str) -> Any:
    """An entry; a long one with the places where a line had better end, behind a sign of a spec."""
    from markupsafe import Markup

    pieces = _SIGNS.split(text) if len(text) > _LONG else [text]
    return Markup("<wbr>").join(pieces)


def _digest(script: str) -> str:
    """The one script that the page's policy lets run."""
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def _classes(table: Table, texts: Sequence[Sequence[str]]) -> list[Any]:
    """How the cells of each column are set: an attribute, or nothing for short figures."""
    from markupsafe import Markup

    longest = [max(map(len, column)) for column in zip(table.headers(), *texts, strict=True)]
    words = [
        " ".join(["text"] * each.text + ["long"] * (size > _LONG))
        for each, size in zip(table.columns, longest, strict=True)
    ]
    return [Markup(' class="{}"').format(word) if word else "" for word in words]


def _data(table: Table, texts: Sequence[Sequence[str]]) -> dict[str, Any]:
    """A large table: words once, rows of places in that list for words and of texts for figures."""
    words: dict[str, int] = {}
    rows = [
        [
            words.setdefault(text, len(words)) if column.text else text
            for text, column in zip(row, table.columns, strict=True)
        ]
        for row in texts
    ]
    return {"words": list(words), "rows": rows}


def _tables(document: Mapping[str, Any], layout: str) -> list[Table]:
    """The tables of a layout that have rows."""
    return [table for table in tables_of(with_tables(document, layout)) if table.rows]


def _paper(document: Mapping[str, Any]) -> list[Table]:
    """The paper's tables, which know no forgeries; that of blocks where blocks were varied."""
    known = _unforged(document)
    blocks = [method for method in {cell["method"] for cell in known["cells"]} if "block=" in method]
    return [*(_tables(known, "paper-table1") if len(blocks) > 1 else []), *_tables(known, "paper-table2")]


def _curve_tables(document: Mapping[str, Any]) -> list[Table]:
    known = _unforged(document)
    n_curves = len({(cell["method"], cell["suspect"]) for cell in known["cells"]})
    return _tables(known, "paper-figure3") if n_curves <= _CURVES else []


def _unforged(document: Mapping[str, Any]) -> dict[str, Any]:
    return {**document, "cells": [cell for cell in document["cells"] if cell["kind"] != "forged"]}


def _curves(document: Mapping[str, Any]) -> list[Picture]:
    """A figure for each method, so that each stays readable on a phone."""
    return [
        picture
        for name, cells in _first(document).items()
        for picture in _pictures(
            "detection-curve", {**document, "cells": cells}, f"Detection curve of {name}", said=False
        )
    ]


def _section(name: str, title: str, document: Mapping[str, Any], kind: str, tables: Sequence[Table]) -> Section:
    shown = _first(document)
    chosen = {**document, "cells": [cell for cells in shown.values() for cell in cells]}
    n_left = len(subjects(document)) - len(shown)
    texts = (f"The figure holds the first {len(shown)} methods; {n_left} more stand in the tables.",) if n_left else ()
    return Section(name, title, texts, pictures=_pictures(kind, chosen, KINDS[kind].title), tables=tables)


def _profile(document: Mapping[str, Any]) -> Section:
    """The figure and its table; where no run has recorded a profile, why."""
    name, title = "profile", "Activation profile"
    if not any(run.get("profile") for run in document["runs"]):
        return Section(name, title, points=(_NO_PROFILE,))
    return _section(name, title, document, "profile", _tables(document, "paper-figure2"))


def _first(document: Mapping[str, Any]) -> dict[str, list[Mapping[str, Any]]]:
    """As many methods as a figure holds."""
    return dict(list(subjects(document).items())[:MOST_SUBJECTS])


def _pictures(kind: str, document: Mapping[str, Any], title: str, *, said: bool = True) -> list[Picture]:
    """The figure, or none where the document has nothing for it."""
    try:
        figure = draw(kind, document)
    except MissingError:
        return []
    about = KINDS[kind].shows
    name = f"f{hashlib.sha256(title.encode(errors='backslashreplace')).hexdigest()[:8]}"
    return [Picture(svg(figure, name, title, about), f"{title}. {about}" if said else title)]
