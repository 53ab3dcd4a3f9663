"""The report of a protection, one page: what it costs, what it survives, who stays silent, how to verify."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from amb.ownership.verification import show_p
from amb.report.page.build import page
from amb.report.page.sections import Fact, Section
from amb.report.tables import Column, Table

if TYPE_CHECKING:
    from amb.ownership.commitment import Commitment

_CLAIMS = {
    "marked release": "that a model descends from this marked copy",
    "lineage": "that a model shares its origin with this one",
}
_LIMITS = (
    "A claim says that chance would hardly have made this key read so well on a model that was made without it.",
    "It does not say who made the key, or when: that is what the commitment and its receipts are for.",
    "The p-value is no probability that the suspect is innocent. It is the chance of such a reading if it is.",
    "Whoever has the unmarked model can remove the mark: keep it to yourself.",
    "What was not tried is not known: a mark that survives these attacks may fall to another.",
    "The key is secret until it is shown to a judge. A copy of the key folder is a copy of the claim.",
)


def render_report(facts: Mapping[str, Any], commitment: Commitment) -> str:
    """The page as text. `facts` are those of report.json."""
    return page(
        f"Protected: {facts['model']}",
        [
            Section("what", "What was made", facts=_list_facts(facts, commitment)),
            Section("cost", "What it costs", tables=[_tabulate_utility(facts)]),
            *([Section("test", "What it survives", tables=[_tabulate_tests(facts)])] if facts["self_test"] else []),
            Section("verify", "How to verify", points=_list_commands(commitment)),
            Section("limits", "What this does not say", points=_LIMITS),
        ],
    )


def _list_facts(facts: Mapping[str, Any], commitment: Commitment) -> list[Fact]:
    return [
        Fact("Method", facts["method"]),
        Fact("A claim says", f"{_CLAIMS[commitment.claim]}, wrongly at most {commitment.level:g} of the time"),
        Fact("Made", f"{commitment.created} (UTC), with amb {commitment.software['amb']}"),
        Fact("Tensors that changed", f"{len(facts['changed'])}"),
        Fact("Unmarked model", f"tensors sha256:{commitment.unmarked.tensors}"),
        Fact("Marked model", f"tensors sha256:{commitment.marked.tensors}"),
        Fact("Seconds to embed", f"{facts['seconds']:.1f}"),
        Fact("Commitment, to publish", f"sha256:{commitment.digest}"),
    ]


def _tabulate_utility(facts: Mapping[str, Any]) -> Table:
    before, after = facts["utility"]["before"], facts["utility"]["after"]
    rows: list[list[Any]] = [[name, before[name], after.get(name)] for name in before]
    alike = ", ".join(f"{name} {value:.3f}" for name, value in facts["similarity"].items())
    columns = [Column("measure", text=True), Column("unmarked"), Column("marked")]
    notes = ["On images that neither training nor the key has seen; every figure in 0..1, more is better."]
    if not before:
        notes = ["Utility was not measured, and no attack was tried: --self-test quick does both."]
    notes.append(
        f"Embeddings of both models on the same images: {alike} (1 is the same; CKA after Kornblith et al. 2019)."
    )
    return Table("Utility before and after", columns, rows, notes)


def _tabulate_tests(facts: Mapping[str, Any]) -> Table:
    rows = [
        [
            row["model"],
            row["attack"],
            "not applicable" if "skipped" in row else _say_claim(row),
            row.get("right"),
            show_p(row["p_value"]) if "p_value" in row else None,
            _best_utility(row),
        ]
        for row in facts["self_test"]
    ]
    columns = [
        Column("model", text=True),
        Column("attack", text=True),
        Column("claim", text=True),
        Column("right symbols"),
        Column("p", text=True),
        Column("utility"),
    ]
    notes = ["The unmarked model and what is made of it have to stay without a claim.", *_list_skipped(facts)]
    return Table("Self-test", columns, rows, notes)


def _say_claim(row: Mapping[str, Any]) -> str:
    if "claim" not in row:
        return "needs negatives"
    return "claimed" if row["claim"] else "no claim"


def _best_utility(row: Mapping[str, Any]) -> float | None:
    from amb.evaluation.primary_utility import primary_utility

    found = primary_utility(row.get("utility", {}))
    return found[1] if found else None


def _list_skipped(facts: Mapping[str, Any]) -> list[str]:
    return [f"{row['attack']}: {row['skipped']}." for row in facts["self_test"] if "skipped" in row]


def _list_commands(commitment: Commitment) -> list[str]:
    return [
        f"Publish or have dated: sha256:{commitment.digest} (`amb commit stamp`, `amb commit attach`).",
        "Ship the folder `model`; keep the folder `key`, with a copy in another place.",
        "A model in doubt: `amb verify SUSPECT --key key --commitment commitment.json -o evidence.zip`.",
        "For a third party add `--open-key` to that: `amb judge evidence.zip --suspect SUSPECT --unmarked ORIGINAL` reads it again.",
    ]
