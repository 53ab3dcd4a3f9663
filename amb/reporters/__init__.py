"""The formats that come along. Each renders the tables of a document; `json` prints all of it."""

from __future__ import annotations

from amb.plugins import Registry, unknown_name
from amb.protocols import Reporter
from amb.reporters.html import HtmlReporter
from amb.reporters.json import JsonReporter
from amb.reporters.table import TableReporter
from amb.reporters.text import CsvReporter, LatexReporter, MarkdownReporter

__all__ = [
    "CsvReporter",
    "HtmlReporter",
    "JsonReporter",
    "LatexReporter",
    "MarkdownReporter",
    "TableReporter",
    "reporter_of",
]


def reporter_of(name: str, registry: Registry) -> Reporter:
    """The reporter of a `--format`. Raises UnknownNameError."""
    if name not in registry.reporters:
        raise unknown_name("format", name, registry.reporters, "`amb plugins` says who provides")
    return registry.reporters[name]()
