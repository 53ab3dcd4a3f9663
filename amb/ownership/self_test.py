"""What a fresh mark survives, and whether the unmarked model stays silent: the owner's first look, not a benchmark."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from amb.api.interfaces import Attack
from amb.api.records import Evidence, Key
from amb.errors import UnknownNameError
from amb.evaluation.claims import exact_test
from amb.evaluation.rates import bit_error_rate
from amb.ownership.reading import read_model
from amb.runtime.timing import measure

if TYPE_CHECKING:
    from amb.api.vision import VisionModel
    from amb.ownership.under_way import Protection

SELF_TESTS: Final = {
    "quick": ("prune20", "quantize8", "finetune:epochs=1,n_images=512"),
    "full": (
        "prune20",
        "prune40",
        "prune60",
        "quantize8",
        "quantize4",
        "finetune",
        "finetune:lr=0.0001",
        "lora",
        "merge-base50",
    ),
}
"""Attacks of each, beside measuring utility; those that are not installed, or do not apply, are left out and said."""


def run_self_test(under_way: Protection, key: Key, unmarked: VisionModel, shipped: VisionModel) -> list[dict[str, Any]]:
    """A row for each attack on the marked model, and each on the unmarked one, which has to stay silent."""
    attacks = list(_find_attacks(under_way))
    pairs = [(source, attack) for source in ("marked", "unmarked") for attack in (None, *attacks)]
    rows = []
    for source, attack in under_way.at.progress.track(pairs, "self-test", len(pairs)):
        model = shipped if source == "marked" else unmarked
        rows.append(_test_one(under_way, key, model, unmarked, source, attack))
    return rows


def _find_attacks(under_way: Protection) -> Iterator[Attack]:
    for text in SELF_TESTS[under_way.request.self_test]:
        try:
            yield from under_way.at.registry.attack_chain(text)
        except UnknownNameError as error:
            under_way.at.progress.say(f"self-test: {error}")


def _test_one(
    under_way: Protection, key: Key, model: VisionModel, unmarked: VisionModel, source: str, attack: Attack | None
) -> dict[str, Any]:
    row: dict[str, Any] = {"model": source, "attack": attack.canonical() if attack else "none"}
    if attack is not None:
        if reason := attack.skip(model) or attack.skip_method(under_way.request.method):
            return {**row, "skipped": reason}
        with under_way.context(f"self-test {attack.canonical()}", "attacker") as ctx, measure(ctx.device) as spent:
            model = attack.apply(model, replace(ctx, base=lambda: unmarked))
        row["seconds"] = spent.seconds
        row["seconds"] = spent.seconds
    if source == "marked":
        with under_way.context("utility", "attacker", "test") as ctx:
            row["utility"] = dict(under_way.request.suite.utility(model, ctx))
    evidence = read_model(under_way.request.method, key, model, lambda: unmarked, under_way.at.compute)
    return {**row, **_describe_evidence(under_way, evidence)}


def _describe_evidence(under_way: Protection, evidence: Evidence) -> dict[str, Any]:
    found: dict[str, Any] = {"right": round(1 - bit_error_rate(evidence), 4), "symbols": int(evidence.expected.size)}
    if under_way.request.method.null == "exact":
        test = exact_test(evidence, under_way.request.level)
        found |= {"p_value": test.p_value, "claim": test.claim}
    return found
