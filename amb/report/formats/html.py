"""`--format html`: one page that needs nothing beside itself, with figures, tables to sort and filter, and provenance."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from amb.api.interfaces import Reporter
from amb.report.tables import tables_of


class HtmlReporter(Reporter):
    """A run, or a document that no layout was asked for, as the whole report; else the tables of the layout."""

    name: ClassVar[str] = "html"
    whole: ClassVar[bool] = True

    def render(self, document: Mapping[str, Any]) -> str:
        from amb.report.page.build import page, sections_of
        from amb.report.page.sections import Section

        if "run" in document or "tables" not in document:
            return page("Ownership verification: report", sections_of(document, self.describe_attack))
        what = "leaderboard" if "sources" in document else "tables"
        return page(f"Ownership verification: {what}", [Section("tables", "Tables", tables=tuple(tables_of(document)))])
