"""What a page is made of: sections of texts, figures and tables, before any HTML."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from amb.report.page.outcomes import Outcomes
from amb.report.tables import Table


@dataclass(frozen=True)
class Picture:
    """A figure with its caption."""

    svg: str
    """An `<svg>` element that amb has drawn: the one thing on a page that is not escaped."""
    caption: str


@dataclass(frozen=True)
class Fact:
    """A term and what is said of it."""

    term: str
    text: str


@dataclass(frozen=True)
class Part:
    """A part that opens on demand: an attack."""

    title: str
    facts: Sequence[Fact] = ()
    texts: Sequence[str] = ()
    tables: Sequence[Table] = ()


@dataclass(frozen=True)
class Section:
    """A section; `name` is its address on the page."""

    name: str
    title: str
    texts: Sequence[str] = ()
    outcomes: Outcomes | None = None
    """A picture that stands before the texts."""
    points: Sequence[str] = ()
    """A list, one line each."""
    pictures: Sequence[Picture] = ()
    tables: Sequence[Table] = ()
    parts: Sequence[Part] = ()
    facts: Sequence[Fact] = ()

    @property
    def empty(self) -> bool:
        """Whether there is nothing under its title."""
        return not (self.points or self.pictures or self.tables or self.parts or self.facts)
