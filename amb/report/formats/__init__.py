"""The formats that come along. Each renders the tables of a document; `json` prints all of it."""

from __future__ import annotations

from amb.api.interfaces import Reporter
from amb.errors import unknown_name
from amb.plugin.registry import Registry
from amb.plugin.specs import hookimpl
from amb.report.formats.html import HtmlReporter
from amb.report.formats.json import JsonReporter
from amb.report.formats.table import TableReporter, WideReporter
from amb.report.formats.text import CsvReporter, LatexReporter, MarkdownReporter

__all__ = [
    "CsvReporter",
    "HtmlReporter",
    "JsonReporter",
    "LatexReporter",
    "MarkdownReporter",
    "TableReporter",
    "WideReporter",
    "reporter_of",
]


@hookimpl
def amb_register_reporters() -> list[type[Reporter]]:
    """Core's own formats, found as anybody's are."""
    return [TableReporter, WideReporter, JsonReporter, CsvReporter, MarkdownReporter, LatexReporter, HtmlReporter]


def reporter_of(name: str, registry: Registry) -> Reporter:
    """The reporter of a `--format`. Raises UnknownNameError."""
    if name not in registry.reporters:
        raise unknown_name("format", name, registry.reporters, "`amb plugins` says who provides")
    return registry.reporters[name](registry.describe_attack)
