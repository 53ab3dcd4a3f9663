"""The names of the formats that come along: light to import, for the command line's help."""

from __future__ import annotations

from typing import Final

FORMATS: Final = ("table", "wide", "json", "csv", "markdown", "latex", "html")
"""In the order in which help lists them; plugins may bring more."""
