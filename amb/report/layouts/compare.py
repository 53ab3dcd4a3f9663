"""Layout `compare`: methods pair by pair, on the suspects that both were read on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Final, NamedTuple

from amb.api.types import SuspectKind
from amb.errors import BadParamsError, near_names
from amb.evaluation.claims import correct_holm
from amb.evaluation.paired import LEVEL, POWER, PairedResult, compare_pairs, detectable_difference, fewest_discordant
from amb.report.entries import list_reasons, list_some
from amb.report.tables import Column, Table, TableEntry, estimate, show
from amb.results.aggregate import by_method
from amb.results.pairs import Pairing, ReadingPair, cluster_claims, pair_methods
from amb.results.records import CellRecord
from amb.results.result_set import ResultSet
from amb.runtime.wording import count

KINDS: Final[dict[SuspectKind, str]] = {
    "positive": "models made from the protected one",
    "negative": "innocent models, where a claim is a false one",
    "forged": "innocent models under keys made up for them, where a claim is a false one",
}
"""The kinds of suspects that methods are compared on."""
_COLUMNS: Final = (
    Column("method", text=True),
    Column("other method", text=True),
    Column("over", text=True),
    Column("skipped", text=True, priority=2),
    Column("n"),
    Column("claimed", 2, priority=2),
    Column("claimed by other", 2, priority=2),
    Column("difference", 2),
    Column("more"),
    Column("fewer"),
    Column("p"),
    Column("p Holm", priority=2),
    Column("detectable", 2, priority=3),
    Column("seeds", priority=3),
)
_NOTES: Final = (
    "over: a suspect counts once, whatever its seeds; so does a family of attacks, or a source of innocent models, whatever its suspects. Suspects of one family or source are alike: where the two rows disagree, believe the second.",
    "difference: share claimed by the method less that by the other; Tango's interval, 95 %. more, fewer: on how many of the n the method claims more than the other, and fewer.",
    "p: McNemar's exact test, the binomial over those that differ; with several seeds or suspects to one, the sign test over them.",
    f"detectable: the smallest true difference that so many would show at {LEVEL:g} over all pairs of methods with probability {POWER:g}, if all that differ do so the same way; – where they show none.",
    "Each method has its own key and its own marked model at a seed, and all suspects of a seed share them: the test speaks of these keys.",
)
_HOLM: Final = "p Holm: corrected for all pairs of methods in this table, by the row's own way of counting (Holm 1979)."
_SKIPPED: Final = "skipped: where one of the methods was skipped on a suspect, that is left out of the pairs, or counts as no claim by it; an attack that does not apply to a method is such a skip too."


@dataclass(frozen=True)
class _Comparison:
    """A row: two methods, over what, and what came of it."""

    methods: tuple[str, str]
    over: str
    skipped: str
    pairs: Sequence[ReadingPair]
    result: PairedResult


class _Corrected(NamedTuple):
    """What the number of pairs does to a row."""

    p: float
    """Holm's."""
    level: float
    """What an uncorrected p has to reach where it is the smallest of them: Holm's first step."""


def compare(results: ResultSet) -> list[Table]:
    """Every two methods on every kind of suspects of one suite and owner."""
    methods = list(by_method(results.cells))
    tables = [table for kind in KINDS for table in compare_methods(results, methods, kind)]
    alone = f"No two methods were read on the same suspects here; there is {list_some(methods)}."
    return tables or [Table(f"Pair by pair, {results.about}", _COLUMNS, [], findings=[alone])]


def compare_methods(results: ResultSet, methods: Sequence[str], kind: SuspectKind) -> list[Table]:
    """A table of every two of these methods, by canonical spec; none where no two of them have suspects of this kind."""
    cells = [cell for cell in results.cells if cell.kind == kind and cell.method in methods]
    pairings = {two: pair_methods(cells, *two) for two in combinations(methods, 2)}
    rows = [row for two, pairing in pairings.items() for row in _compare_pairing(two, pairing, kind)]
    if not rows:
        return []
    corrected = _correct_rows(rows)
    several = len({row.methods for row in rows}) > 1
    made = Table(
        f"Pair by pair on {KINDS[kind]}, {results.about}",
        _COLUMNS,
        [_make_row(row, p) for row, p in zip(rows, corrected, strict=True)],
        [*_list_notes(several, rows), *_list_left_out(pairings), *list_reasons(cells)],
        [_say_difference(row, p) for row, p in zip(rows, corrected, strict=True) if row.over != "suspects"],
    )
    return [made if several else _drop_column(made, "p Holm")]


def compare_all(results: ResultSet, methods: Sequence[str], kind: SuspectKind) -> list[Table]:
    """The same for every suite and owner. Raises BadParamsError where there is nothing to compare."""
    if kind not in KINDS:
        raise BadParamsError(
            f"There is no kind '{kind}' of suspects.{near_names(kind, KINDS)} There are: {', '.join(KINDS)}."
        )
    if len(methods) < 2:
        have = ", ".join(by_method(results.cells)) or "none"
        raise BadParamsError(f"A comparison takes two methods or more. Name them; there are results of: {have}.")
    tables = [table for part in results.split_owners() for table in compare_methods(part, methods, kind)]
    if not tables:
        named = ", ".join(methods)
        raise BadParamsError(
            f"No two of {named} were read on the same {kind} suspects and kept them usable. Choose others, or another --kind."
        )
    return tables


def _compare_pairing(methods: tuple[str, str], pairing: Pairing, kind: SuspectKind) -> Iterator[_Comparison]:
    """Over suspects and over what they are alike by; both ways of counting skips where there are any."""
    counted = {"left out": pairing.judged}
    if pairing.skipped:
        counted["no claim"] = [*pairing.judged, *pairing.skipped]
    over: dict[str, Callable[[ReadingPair], str]] = {
        "suspects": lambda pair: pair.first.suspect,
        "families" if kind == "positive" else "sources": lambda pair: pair.source,
    }
    for skipped, pairs in counted.items():
        for name, key in over.items():
            if pairs:
                yield _Comparison(methods, name, skipped, pairs, compare_pairs(cluster_claims(pairs, key)))


def _correct_rows(rows: Sequence[_Comparison]) -> list[_Corrected]:
    """For all pairs of methods that are counted the same way."""
    corrected = [_Corrected(0.0, LEVEL)] * len(rows)
    for way in {(row.over, row.skipped) for row in rows}:
        places = [at for at, row in enumerate(rows) if (row.over, row.skipped) == way]
        for at, p in zip(places, correct_holm([rows[at].result.p_value for at in places]), strict=True):
            corrected[at] = _Corrected(p, LEVEL / len(places))
    return corrected


def _make_row(row: _Comparison, corrected: _Corrected) -> list[TableEntry]:
    found = row.result
    return [
        *row.methods,
        row.over,
        row.skipped,
        found.difference.n,
        found.first_share,
        found.second_share,
        estimate(found.difference),
        found.first_more,
        found.second_more,
        found.p_value,
        corrected.p,
        detectable_difference(found.difference.n, corrected.level),
        len({pair.first.seed for pair in row.pairs}),
    ]


def _drop_column(table: Table, name: str) -> Table:
    kept = [at for at, column in enumerate(table.columns) if column.name != name]
    return table.choose(kept, len(table.rows))


def _list_notes(several: bool, rows: Sequence[_Comparison]) -> list[str]:
    holm = [_HOLM] if several else []
    skipped = [_SKIPPED] if any(row.skipped == "no claim" for row in rows) else []
    return [*_NOTES, *holm, *skipped]


def _say_difference(row: _Comparison, corrected: _Corrected) -> str:
    """What the pairs show, in a sentence, by the row that takes what is alike together."""
    (first, second), found = row.methods, row.result
    n = found.difference.n
    skips = "" if row.skipped == "left out" else ", skips counted as no claim"
    lead = f"{first} against {second}{skips}: "
    if n < (needed := fewest_discordant(corrected.level)):
        return f"{lead}no difference could be shown, for there are {n} {row.over} and it takes {needed}."
    value, low, high, _ = found.difference
    figures = f"difference {value:+.2f} ({low:+.2f} to {high:+.2f}) over {n} {row.over}, p = {show(corrected.p)}"
    if corrected.p <= LEVEL:
        return f"{lead}claims {'more' if found.first_more > found.second_more else 'fewer'}; {figures}."
    least = show(detectable_difference(n, corrected.level), 2)
    return f"{lead}no difference is shown; {figures}. One of {least} or more could have been, at best."


def _list_left_out(pairings: dict[tuple[str, str], Pairing]) -> list[str]:
    """What no pair holds, by reason; the same of many methods on one line."""
    return [line for two, pairing in pairings.items() for line in _describe_left_out(two, pairing)]


def _describe_left_out(methods: tuple[str, str], pairing: Pairing) -> Iterator[str]:
    two = " and ".join(methods)
    for what, pairs in (
        ("an attack destroyed the model of one of them", pairing.destroyed),
        ("one of them failed, or neither has a verdict", pairing.unread),
    ):
        if pairs:
            yield f"Left out of {two}: {count(len(pairs), 'pair')}, {what}: {_name_suspects([pair.first for pair in pairs])}."
    if pairing.skipped:
        named = _name_suspects([pair.first for pair in pairing.skipped])
        yield f"Skipped by one of {two}: {count(len(pairing.skipped), 'pair')}: {named}."
    if pairing.alone:
        yield f"Left out of {two}: {count(len(pairing.alone), 'cell')} of one that the other has not: {_name_suspects(pairing.alone)}."


def _name_suspects(cells: Sequence[CellRecord]) -> str:
    return list_some(list(dict.fromkeys(cell.suspect for cell in cells)))
