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
from amb.report.figures import FIGURE_KINDS, draw, svg
from amb.report.figures.subjects import MOST_SUBJECTS, subjects
from amb.report.layouts import make_tables
from amb.report.page.attacks import make_attacks
from amb.report.page.provenance import make_cells, make_how, make_memory_table, make_provenance
from amb.report.page.sections import Picture, Section
from amb.report.page.summary import make_summary
from amb.report.tables import Table, tables_of
from amb.results.aggregate import by_method
from amb.results.records import JudgedRecord
from amb.results.result_set import ResultSet, parse_results

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
_ENDS: Final = re.compile(r"([\d.]+(?: \w+)*) (\([\d.]+[^()]*–[^()]*\))")
"""A figure and its interval."""
_NO_PROFILE: Final = (
    "No run here has recorded one: an owner without transformer blocks has none, "
    "and a run that goes on writes it with its first cell."
)
_HERE: Final = Path(__file__).parent


def sections_of(document: Mapping[str, Any], describe: DescribeAttack) -> list[Section]:
    """Every section that a run or a collected document has something for, the summary first."""
    results = parse_results(document, describe)
    found = [
        make_summary(results),
        Section("choice", "Which method for which thief", tables=_list_tables(results, "choice")),
        Section("run", "This run", tables=tables_of(document) if "tables" in document else ()),
        Section("tables", "Tables", tables=[*_list_tables(results, "summary"), *_list_paper_tables(results)]),
        _make_curves(results),
        _make_section("robustness", "Robustness and utility", results, "pareto", _list_tables(results, "robustness")),
        Section("compare", "Methods pair by pair", tables=_list_pair_tables(results)),
        _make_section("suspects", "Telling suspects apart", results, "roc", _list_tables(results, "suspects")),
        Section("innocents", "Innocent models by class", tables=_list_tables(results, "negatives")),
        _make_profile(results),
        _make_section("time", "Time and memory", results, "timing", _list_time_tables(results)),
        make_attacks(results, describe),
        make_cells(results),
        make_how(),
        make_provenance(results),
    ]
    return [section for section in found if not section.empty]


def page(title: str, sections: Sequence[Section]) -> str:
    """The page as text: styles, script, figures and data inside; every value is escaped, control characters are shown."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    files = FileSystemLoader(_HERE)
    made = Environment(loader=files, autoescape=True, finalize=_show_value, undefined=StrictUndefined, trim_blocks=True)
    made.globals.update(
        large=LARGE, few=_NOTES, classes_of=_list_classes, data=_pack_rows, broken=_break_text, safe=Markup
    )
    style, script = (Markup((_HERE / name).read_text(encoding="utf-8")) for name in ("page.css", "page.js"))  # noqa: S704
    return made.get_template("page.html").render(
        title=title, sections=sections, style=style, script=script, digest=_hash_script(script)
    )


def _show_value(value: Any) -> Any:
    """What a template prints: a stranger's text on one line, our own markup as it is."""
    return printable(value) if type(value) is str else value


def _break_text(text: str) -> Any:
    """An entry with the places where a line had better end: before an interval, or behind a sign of a long spec."""
    from markupsafe import Markup

    if found := _ENDS.fullmatch(text):
        return Markup('{} <span class="ends">{}</span>').format(*found.groups())
    pieces = _SIGNS.split(text) if len(text) > _LONG else [text]
    return Markup("<wbr>").join(pieces)


def _hash_script(script: str) -> str:
    """The one script that the page's policy lets run."""
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def _list_classes(table: Table, texts: Sequence[Sequence[str]]) -> list[Any]:
    """How the cells of each column are set: an attribute, or nothing for short figures."""
    from markupsafe import Markup

    longest = [max(map(len, column)) for column in zip(table.headings(), *texts, strict=True)]
    words = [
        " ".join(["text"] * each.text + ["long"] * (size > _LONG))
        for each, size in zip(table.columns, longest, strict=True)
    ]
    return [Markup(' class="{}"').format(word) if word else "" for word in words]


def _pack_rows(table: Table, texts: Sequence[Sequence[str]]) -> dict[str, Any]:
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


def _list_tables(results: ResultSet, layout: str) -> list[Table]:
    """The tables of a layout that have rows."""
    return [table for table in make_tables(results, layout) if table.rows]


def _list_pair_tables(results: ResultSet) -> list[Table]:
    """Of as many methods as a figure holds: every two of them have rows."""
    return _list_tables(_keep_first(results), "compare")


def _keep_first(results: ResultSet) -> ResultSet:
    methods = list(by_method(results.cells))[:MOST_SUBJECTS]
    return results.with_cells([cell for cell in results.cells if cell.method in methods])


def _list_paper_tables(results: ResultSet) -> list[Table]:
    """The paper's tables, which know no forgeries; that of blocks where blocks were varied."""
    known = _drop_forged(results)
    blocks = [method for method in by_method(known.cells) if "block=" in method]
    return [*(_list_tables(known, "paper-table1") if len(blocks) > 1 else []), *_list_tables(known, "paper-table2")]


def _list_curve_tables(results: ResultSet) -> list[Table]:
    known = _drop_forged(results)
    n_curves = len({(cell.method, cell.suspect) for cell in known.cells})
    return _list_tables(known, "paper-figure3") if n_curves <= _CURVES else []


def _list_time_tables(results: ResultSet) -> list[Table]:
    return [*_list_tables(results, "paper-table3"), make_memory_table(results)]


def _drop_forged(results: ResultSet) -> ResultSet:
    return results.with_cells([cell for cell in results.cells if cell.kind != "forged"])


def _make_curves(results: ResultSet) -> Section:
    """A figure for each method, so that each stays readable on a phone."""
    pictures = [
        picture
        for name, cells in _choose_subjects(results).items()
        for picture in _draw_pictures(
            "detection-curve", results.with_cells(cells), f"Detection curve of {name}", said=False
        )
    ]
    texts = (FIGURE_KINDS["detection-curve"].shows,)
    return Section("curves", "Detection curves", texts, pictures=pictures, tables=_list_curve_tables(results))


def _make_section(name: str, title: str, results: ResultSet, kind: str, tables: Sequence[Table]) -> Section:
    shown = _choose_subjects(results)
    chosen = results.with_cells([cell for cells in shown.values() for cell in cells])
    n_left = len(subjects(results)) - len(shown)
    texts = (f"The figure holds the first {len(shown)} methods; {n_left} more stand in the tables.",) if n_left else ()
    pictures = _draw_pictures(kind, chosen, FIGURE_KINDS[kind].title)
    return Section(name, title, texts, pictures=pictures, tables=tables)


def _make_profile(results: ResultSet) -> Section:
    """The figure and its table; where no run has recorded a profile, why."""
    name, title = "profile", "Activation profile"
    if not any(run.profile for run in results.runs):
        return Section(name, title, points=(_NO_PROFILE,))
    return _make_section(name, title, results, "profile", _list_tables(results, "paper-figure2"))


def _choose_subjects(results: ResultSet) -> dict[str, list[JudgedRecord]]:
    """As many methods as a figure holds."""
    return dict(list(subjects(results).items())[:MOST_SUBJECTS])


def _draw_pictures(kind: str, results: ResultSet, title: str, *, said: bool = True) -> list[Picture]:
    """The figure, or none where the results hold nothing for it."""
    try:
        figure = draw(kind, results)
    except MissingError:
        return []
    about = FIGURE_KINDS[kind].shows
    name = f"f{hashlib.sha256(title.encode(errors='backslashreplace')).hexdigest()[:8]}"
    return [Picture(svg(figure, name, title, about), f"{title}. {about}" if said else title)]
