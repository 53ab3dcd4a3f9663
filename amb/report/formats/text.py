"""`--format csv`, `markdown` and `latex`: tables as text that other programs load as it is."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Any, ClassVar, Final

from amb.api.interfaces import Reporter
from amb.errors import printable
from amb.report.tables import Table, tables_of


class CsvReporter(Reporter):
    """Raw values, an estimate in three columns. Several tables are one below the other, told apart by a column `table`.

    Text that a spreadsheet would run as a formula has a `'` in front.
    """

    name: ClassVar[str] = "csv"

    def render(self, document: Mapping[str, Any]) -> str:
        import pandas as pd

        tables = tables_of(document)
        if len(tables) == 1:
            headers, rows = _flatten_table(tables[0])
            return pd.DataFrame(rows, columns=headers).to_csv(index=False).rstrip("\n")
        records = [record for table in tables for record in _make_records(table)]
        return pd.DataFrame(records, dtype=object).to_csv(index=False).rstrip("\n")


def _make_records(table: Table) -> Iterator[dict[str, Any]]:
    """The rows with their table's title; what other tables have besides stays empty."""
    headers, rows = _flatten_table(table)
    for row in rows:
        record: dict[str, Any] = {"table": _disarm_value(table.title)}
        for header, value in zip(headers, row, strict=True):
            record[_rename_taken(header, record)] = value
        yield record


def _flatten_table(table: Table) -> tuple[list[Any], list[list[Any]]]:
    headers, rows = table.flat()
    return [_disarm_value(header) for header in headers], [[_disarm_value(value) for value in row] for row in rows]


def _disarm_value(value: Any) -> Any:
    """Text that no spreadsheet takes for a formula (OWASP, CSV injection); numbers, also negative ones, stay numbers."""
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value


_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""What a formula begins with, also in full width, as East Asian editions read it."""


def _rename_taken(header: str, taken: Mapping[str, Any]) -> str:
    """The header, or `R.1` where there is an `R`, as pandas names columns that share a name."""
    n, name = 0, header
    while name in taken:
        n += 1
        name = f"{header}.{n}"
    return name


class MarkdownReporter(Reporter):
    """Tables of GitHub's Markdown, with the notes underneath."""

    name: ClassVar[str] = "markdown"

    def render(self, document: Mapping[str, Any]) -> str:
        return "\n\n".join(_render_markdown(table) for table in tables_of(document))


def _render_markdown(table: Table) -> str:
    marks = ["---" if column.text else "---:" for column in table.columns]
    header, *rows = (_render_markdown_row(each) for each in (table.headings(), *table.texts()))
    lines = [header, f"| {' | '.join(marks)} |", *rows]
    notes = [f"- {_escape_markdown(note)}" for note in table.notes]
    title = f"**{_escape_markdown(table.title)}**"
    findings = [line for finding in table.findings for line in (_escape_markdown(finding), "")]
    return "\n".join([title, "", *findings, *lines, *(["", *notes] if notes else [])])


def _render_markdown_row(entries: Sequence[str]) -> str:
    return f"| {' | '.join(_escape_markdown(entry) for entry in entries)} |"


def _escape_markdown(text: str) -> str:
    """Text that shows as it is: no mark-up, no second cell, no second line."""
    text = printable(" ".join(text.split())).replace("\\", "\\\\").replace("&", "&amp;").replace("<", "&lt;")
    for mark in "|*_`[~$":
        text = text.replace(mark, f"\\{mark}")
    return text


class LatexReporter(Reporter):
    """A `table` for each, in the style of the package booktabs; what is too wide is set in paragraphs, then scaled down."""

    name: ClassVar[str] = "latex"

    def render(self, document: Mapping[str, Any]) -> str:
        parts = [text for table in tables_of(document) for text in _render_latex(table)]
        return "\n\n".join([_NEEDS, *parts])


_NEEDS: Final = "% needs \\usepackage{booktabs,graphicx}"
_WIDEST: Final = 40
"""Letters of an entry that stay on one line; 24 in a header."""
_TALLEST: Final = 36
"""Lines of a page's table; what is longer goes on in another."""
_MOST_NOTES: Final = 1500
"""Letters of notes that fit beneath a table on its page."""
_LONGEST_TITLE: Final = 400


def _render_latex(table: Table) -> Iterator[str]:
    """A `table` for each page that it takes, then the notes that do not fit on the last."""
    pages = list(_split_pages(table.texts()))
    notes = [_break_latex(note) for note in (*table.findings, *table.notes)]
    beneath = notes if sum(map(len, notes)) <= _MOST_NOTES else []
    for number, rows in enumerate(pages, 1):
        part = f" ({number} of {len(pages)})" if len(pages) > 1 else ""
        last = number == len(pages)
        yield _render_float(table, _shorten_title(table.title) + part, rows, beneath if last else [])
    if len(beneath) < len(notes):
        lines = "\\par\n".join([f"Notes to: {_break_latex(_shorten_title(table.title))}", *notes])
        yield f"{{\\footnotesize\\noindent\\sloppy\n{lines}\\par}}"


def _render_float(table: Table, title: str, rows: Sequence[Sequence[str]], notes: Sequence[str]) -> str:
    columns = "".join("l" if column.text else "r" for column in table.columns)
    header = " & ".join(_render_latex_entry(each, 24, "9em") for each in table.headings()) + r" \\"
    body = [" & ".join(_render_latex_entry(each, _WIDEST, "16em") for each in row) + r" \\" for row in rows]
    tabular = [rf"\begin{{tabular}}{{{columns}}}", r"\toprule", header, r"\midrule", *body, r"\bottomrule"]
    lines = [
        r"\begin{table}[htbp]",
        r"\centering\sloppy",
        rf"\caption{{{_break_latex(title)}}}",
        r"\resizebox*{!}{\ifdim\totalheight>.75\textheight .75\textheight\else\totalheight\fi}{%",
        r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%",
        *tabular,
        r"\end{tabular}}}",
        *([r"\par\medskip\raggedright\footnotesize"] if notes else []),
        *(rf"{note}\par" for note in notes),
        r"\end{table}",
    ]
    return "\n".join(lines)


def _split_pages(rows: Sequence[Sequence[str]]) -> Iterator[list[Sequence[str]]]:
    """The rows in pieces of a page's length; at least one piece, and at least one row in each where there are rows."""
    page: list[Sequence[str]] = []
    height = 0
    for row in rows:
        tall = max((1 + len(entry) // _WIDEST for entry in row), default=1)
        if page and height + tall > _TALLEST:
            yield page
            page, height = [], 0
        page.append(row)
        height += tall
    yield page


def _render_latex_entry(text: str, widest: int, width: str) -> str:
    """An entry; one that is long is set as a paragraph of some width."""
    set_ = _break_latex(text)
    return set_ if len(text) <= widest else rf"\parbox[t]{{{width}}}{{\raggedright\strut {set_}\strut}}"


def _shorten_title(title: str) -> str:
    """A title that leaves room on the page: a letter that has to be spelled takes as much of it as its name."""
    lengths = accumulate(len(_escape_latex(letter)) for letter in title)
    fits = sum(length <= _LONGEST_TITLE for length in lengths)
    return title if fits == len(title) else f"{title[:fits]}…"


def _break_latex(text: str) -> str:
    """Escaped, with places where a long word may be broken."""
    return " ".join(
        r"\allowbreak ".join(_escape_latex(piece) for piece in _PIECES.findall(word))
        for word in printable(" ".join(text.split())).split(" ")
    )


_PIECES: Final = re.compile(r".{1,7}[,:+=/.-](?=.{4})|.{8}(?=.{4})|.+")
_LATEX: Final = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}",
    "[": "{[}", "]": "{]}", "*": "{*}",  # \\ before them would take them for its own
    "-": "{-}", "'": r"\textquoteright{}", "`": r"\textasciigrave{}",  # -- and '' would become other signs
    "–": "--", "—": "---", "…": r"\ldots{}", "“": "``", "”": "''",
    "‘": r"\textquoteleft{}", "’": r"\textquoteright{}", "·": r"$\cdot$", "×": r"$\times$", "→": r"$\to$", "≤": r"$\le$",
    "≥": r"$\ge$", "±": r"$\pm$", "°": r"$^\circ$", "µ": r"$\mu$", "§": r"\S{}", "æ": r"\ae{}", "Æ": r"\AE{}", "ø": r"\o{}",
    "Ø": r"\O{}", "œ": r"\oe{}", "Œ": r"\OE{}", "ß": r"\ss{}", "ł": r"\l{}", "Ł": r"\L{}", "ı": r"\i{}",
}  # fmt: skip
_ACCENTS: Final = {
    "\u0300": "`", "\u0301": "'", "\u0302": "^", "\u0303": "~", "\u0304": "=", "\u0306": "u", "\u0307": ".",
    "\u0308": '"', "\u030a": "r", "\u030b": "H", "\u030c": "v", "\u0327": "c",
}  # fmt: skip
_GREEK: Final = re.compile(
    "GREEK SMALL LETTER (ALPHA|BETA|GAMMA|DELTA|EPSILON|ZETA|ETA|THETA|IOTA|KAPPA|LAMDA|MU|NU|XI|PI|RHO|SIGMA|TAU|UPSILON|PHI|CHI|PSI|OMEGA)"
)


def _escape_latex(text: str) -> str:
    return "".join(_LATEX[letter] if letter in _LATEX else _spell_letter(letter) for letter in text)


def _spell_letter(letter: str) -> str:
    """A letter that pdflatex knows in its own font encoding; any other is named, as `U+6F22`, rather than lost."""
    if letter.isascii():
        return letter
    if greek := _GREEK.fullmatch(unicodedata.name(letter, "")):
        return rf"$\{greek[1].lower().replace('lamda', 'lambda')}$"
    base, *marks = list(unicodedata.normalize("NFD", letter))
    if len(marks) == 1 and marks[0] in _ACCENTS and base.isascii():
        return rf"\{_ACCENTS[marks[0]]}{{{base}}}"
    return rf"\texttt{{U+{ord(letter):04X}}}\allowbreak "
