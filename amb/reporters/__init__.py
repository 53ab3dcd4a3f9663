"""Reporters that ship with amb: a table for people, JSON for scripts."""

from __future__ import annotations

from amb.reporters.json import JsonReporter
from amb.reporters.table import TableReporter

__all__ = ["JsonReporter", "TableReporter"]
