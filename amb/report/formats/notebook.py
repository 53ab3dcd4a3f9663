"""Tables as a piece of HTML for a notebook's cell: the same as the report's, in the notebook's own style."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from amb.errors import printable
from amb.report.tables import Table


def render_fragment(tables: Sequence[Table]) -> str:
    """Every table with its notes; whatever a name holds is escaped."""
    return "".join(
        f'<div class="amb">{_render_findings(table)}{_render_table(table)}{_render_notes(table.notes)}</div>'
        for table in tables
    )


def _render_findings(table: Table) -> str:
    return "".join(f"<p>{_escape_html(finding)}</p>" for finding in table.findings)


def _render_table(table: Table) -> str:
    sides = ["left" if column.text else "right" for column in table.columns]
    head = _render_row(table.headings(), sides, "th")
    body = "".join(_render_row(row, sides, "td") for row in table.texts())
    return f"<table><caption>{_escape_html(table.title)}</caption><thead>{head}</thead><tbody>{body}</tbody></table>"


def _render_row(entries: Sequence[str], sides: Sequence[str], tag: str) -> str:
    cells = (
        f'<{tag} style="text-align:{side}">{_escape_html(entry)}</{tag}>'
        for entry, side in zip(entries, sides, strict=True)
    )
    return f"<tr>{''.join(cells)}</tr>"


def _render_notes(notes: Sequence[str]) -> str:
    return f"<ul>{''.join(f'<li>{_escape_html(note)}</li>' for note in notes)}</ul>" if notes else ""


def _escape_html(text: str) -> str:
    return escape(printable(text))
