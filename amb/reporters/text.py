"""`--format csv`, `markdown` and `latex`: tables as text that other programs load."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from amb.protocols import Reporter
from amb.tables import Table, tables_of


class CsvReporter(Reporter):
    """Raw values, an estimate in three columns; several tables are parted by an empty line."""

    name: ClassVar[str] = "csv"

    def render(self, document: Mapping[str, Any]) -> str:
        import pandas as pd

        parts = []
        for table in tables_of(document):
            headers, rows = table.flat()
            parts.append(pd.DataFrame(rows, columns=headers).to_csv(index=False))
        return "\n".join(parts).rstrip("\n")


class MarkdownReporter(Reporter):
    """Tables of GitHub's Markdown, with the notes underneath."""

    name: ClassVar[str] = "markdown"

    def render(self, document: Mapping[str, Any]) -> str:
        return "\n\n".join(_markdown(table) for table in tables_of(document))


class LatexReporter(Reporter):
    """A `table` for each, in the style of the package booktabs."""

    name: ClassVar[str] = "latex"

    def render(self, document: Mapping[str, Any]) -> str:
        parts = [_latex(table) for table in tables_of(document)]
        return "\n\n".join(["% needs \\usepackage{booktabs}", *parts])


def _markdown(table: Table) -> str:
    marks = ["---" if column.text else "---:" for column in table.columns]
    lines = [_markdown_row(each) for each in (table.headers(), marks, *table.texts())]
    notes = [f"- {_escape_markdown(note)}" for note in table.notes]
    title = f"**{_escape_markdown(table.title)}**"
    return "\n".join([title, "", *lines, *(["", *notes] if notes else [])])


def _markdown_row(entries: Sequence[str]) -> str:
    return f"| {' | '.join(_escape_markdown(entry) for entry in entries)} |"


def _escape_markdown(text: str) -> str:
    """Text that shows as it is: no mark-up, no second cell, no second line."""
    text = " ".join(text.split()).replace("\\", "\\\\").replace("<", "&lt;")
    for mark in "|*_`[":
        text = text.replace(mark, f"\\{mark}")
    return text


def _latex(table: Table) -> str:
    columns = "".join("l" if column.text else "r" for column in table.columns)
    rows = [" & ".join(_escape_latex(entry) for entry in row) + r" \\" for row in (table.headers(), *table.texts())]
    notes = [rf"\par\footnotesize {_escape_latex(note)}" for note in table.notes]
    lines = [
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{_escape_latex(table.title)}}}",
        rf"\begin{{tabular}}{{{columns}}}",
        r"\toprule",
        rows[0],
        r"\midrule",
        *rows[1:],
        r"\bottomrule",
        r"\end{tabular}",
        *notes,
        r"\end{table}",
    ]
    return "\n".join(lines)


_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}",
    "τ": r"$\tau$", "–": "--", "·": r"$\cdot$", "→": r"$\to$", "≤": r"$\le$", "≥": r"$\ge$", "α": r"$\alpha$", "ρ": r"$\rho$",
}  # fmt: skip


def _escape_latex(text: str) -> str:
    return "".join(_LATEX.get(letter, letter) for letter in " ".join(text.split()))
