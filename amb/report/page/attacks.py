"""The section of attacks: what each does, with which parameters, and what was read after it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from amb.api.interfaces import DescribeAttack
from amb.report.figures.subjects import subjects
from amb.report.layouts.cells import Cell, group, mean_entry, rate_entry, usable
from amb.report.page.sections import Fact, Part, Section
from amb.report.tables import Column, Entry, Table

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
    Column("attack s", 1),
)


def attacks(document: Mapping[str, Any], describe: DescribeAttack) -> Section:
    """A part for each attack and chain of attacks, whatever their parameters."""
    named = [(name, cell) for name, cells in subjects(document).items() for cell in cells if cell["attack"] != "none"]
    chains = group([{**cell, "method": name} for name, cell in named], lambda cell: " + ".join(_names(cell)))
    parts = [_part(chain, cells, describe) for chain, cells in sorted(chains.items())[:MOST]]
    left = len(chains) - len(parts)
    texts = (f"{left} more chains of attacks stand in the table of all cells alone.",) if left > 0 else ()
    return Section("attacks", "Attacks", texts, parts=parts)


def _part(chain: str, cells: Sequence[Cell], describe: DescribeAttack) -> Part:
    facts = [fact for name in dict.fromkeys(_names(cells[0])) for fact in _about(name, describe)]
    rows = group(cells, lambda cell: (str(cell["attack"]), str(cell["method"]), str(cell["kind"])))
    table = Table(f"Results of {chain}", _COLUMNS, [[*key, *_row(members)] for key, members in rows.items()])
    return Part(chain, facts, tables=(table,))


def _about(name: str, describe: DescribeAttack) -> list[Fact]:
    """What the component says of itself."""
    texts = describe(name)
    if texts is None:
        return [Fact(name, "The plugin that provides it is not installed here.")]
    return [Fact(f"{name}, {what}" if what else name, " ".join(text.split())) for what, text in texts.items() if text]


def _row(cells: Sequence[Cell]) -> list[Entry]:
    kept = usable(cells)
    lost = mean_entry(cell.get("utility_drop") for cell in cells)
    return [
        len(cells),
        rate_entry(cells),
        f"{sum(bool(cell['owned']) for cell in cells)} of {len(cells)}",
        f"{len(cells) - len(kept)} of {len(cells)}",
        lost["value"] if isinstance(lost, Mapping) else None,
        sum(cell["seconds"].get("attack") or 0.0 for cell in cells) / len(cells),
    ]


def _names(cell: Cell) -> list[str]:
    """The names in a chain; the text as it is where it does not parse."""
    return [part.partition(":")[0] for part in str(cell["attack"]).split("+")]
