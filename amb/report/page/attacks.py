"""The section of attacks: what each does, with which parameters, and what was read after it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from amb.api.interfaces import DescribeAttack
from amb.report.entries import count_entry, rate_entry
from amb.report.figures.subjects import subjects
from amb.report.page.sections import Fact, Part, Section
from amb.report.tables import Column, Table, TableEntry
from amb.results.aggregate import count_claims, group_by, mean, mean_seconds, usable
from amb.results.records import JudgedRecord
from amb.results.result_set import ResultSet

MOST: Final = 200
_COLUMNS: Final = (
    Column("attack", text=True),
    Column("method", text=True),
    Column("kind", text=True),
    Column("cells"),
    Column("R(τ)"),
    Column("claimed", text=True),
    Column("destroyed", text=True),
    Column("utility lost", 2),
    Column("attack s", seconds=True),
)


Named = tuple[str, JudgedRecord]
"""A cell and the name of its subject: the method, with the owner where there are several."""


def make_attacks(results: ResultSet, describe: DescribeAttack) -> Section:
    """A part for each attack and chain of attacks, whatever their parameters."""
    named = [(name, cell) for name, cells in subjects(results).items() for cell in cells if cell.is_attacked]
    chains = group_by(named, lambda each: " + ".join(each[1].attack_names))
    parts = [_make_part(chain, cells, describe) for chain, cells in sorted(chains.items())[:MOST]]
    left = len(chains) - len(parts)
    texts = (f"{left} more chains of attacks stand in the table of all cells alone.",) if left > 0 else ()
    return Section("attacks", "Attacks", texts, parts=parts)


def _make_part(chain: str, named: Sequence[Named], describe: DescribeAttack) -> Part:
    names = dict.fromkeys(named[0][1].attack_names)
    facts = [fact for name in names for fact in _describe_attack(name, describe)]
    rows = group_by(named, lambda each: (each[1].attack, each[0], each[1].kind))
    entries = [[*key, *_make_figures([cell for _, cell in members])] for key, members in rows.items()]
    return Part(chain, facts, tables=(Table(f"Results of {chain}", _COLUMNS, entries),))


def _describe_attack(name: str, describe: DescribeAttack) -> list[Fact]:
    """What the component says of itself."""
    texts = describe(name)
    if texts is None:
        return [Fact(name, "The plugin that provides it is not installed here.")]
    return [Fact(f"{name}, {what}" if what else name, " ".join(text.split())) for what, text in texts.items() if text]


def _make_figures(cells: Sequence[JudgedRecord]) -> list[TableEntry]:
    return [
        len(cells),
        rate_entry(cells),
        count_entry(count_claims(cells), cells),
        count_entry(len(cells) - len(usable(cells)), cells),
        mean(cell.utility_drop for cell in cells),
        mean_seconds(cells, "attack"),
    ]
