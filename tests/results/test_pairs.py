"""Pairs of readings, removals and thieves: who is counted with whom, against counts by hand."""

from __future__ import annotations

from typing import Any

import pytest

from amb.errors import BadParamsError
from amb.plugin.manager import Manager
from amb.results.pairs import cluster_claims, pair_methods
from amb.results.records import parse_cell
from amb.results.removals import least_removal, list_removals
from amb.results.result_set import ResultSet
from amb.results.select import choose_methods
from amb.results.thieves import SEVERAL, UNKNOWN, Thieves
from amb.testing.reporter import example_document

REGISTRY = Manager().registry
THIEVES = Thieves(REGISTRY.describe_attack)


def cell(method: str, suspect: str, claim: bool = True, **said: Any) -> Any:
    """A cell; an attack is named as its suspect, unless it says another."""
    template = example_document()["cells"][0]
    where = {"suite": "toy", "owner": "toy/owner", "run": "r", "sweep": None, "group": suspect.partition(":")[0]}
    return parse_cell(
        {**template, **where, "method": method, "suspect": suspect, "attack": suspect, "claim": claim, **said}
    )


def skipped(method: str, suspect: str, status: str = "skipped") -> Any:
    return cell(method, suspect, status=status, reason="no", detection_rate=None)


def test_every_reading_has_one_place() -> None:
    cells = [
        *(cell(method, "prune20") for method in "ab"),
        *(cell(method, "prune20", method == "a", seed=1) for method in "ab"),
        cell("a", "prune40"), skipped("b", "prune40"),
        cell("a", "prune60"), cell("b", "prune60", destroyed=True),
        cell("a", "prune80"), skipped("b", "prune80", "failed"),
        skipped("a", "noise"), skipped("b", "noise"),
        cell("a", "blur"), cell("c", "prune20"),
    ]  # fmt: skip
    found = pair_methods(cells, "a", "b")
    assert [(pair.first.suspect, pair.first.seed, pair.claims) for pair in found.judged] == [
        ("prune20", 0, (True, True)),
        ("prune20", 1, (True, False)),
    ]
    assert [(pair.first.suspect, pair.claims) for pair in found.skipped] == [("prune40", (True, False))]
    assert [pair.first.suspect for pair in found.destroyed] == ["prune60"]
    assert [pair.first.suspect for pair in found.unread] == ["prune80", "noise"]
    assert [each.suspect for each in found.alone] == ["blur"]


def test_a_pair_is_of_one_suspect_of_one_owner() -> None:
    cells = [cell("a", "x"), cell("b", "x", owner="toy/other"), cell("b", "x", kind="negative"), cell("b", "y")]
    found = pair_methods(cells, "a", "b")
    assert not found.judged
    assert len(found.alone) == 4


def test_alike_is_what_has_a_family_or_a_source() -> None:
    marked = [cell(m, f"prune:amount=0.{n}", m == "a") for n in (2, 4) for m in "ab"] + [cell(m, "noise") for m in "ab"]
    pairs = pair_methods(marked, "a", "b").judged
    assert [pair.source for pair in pairs] == ["prune", "prune", "noise"]
    assert cluster_claims(pairs, lambda pair: pair.source) == [[(True, False)] * 2, [(True, True)]]
    innocent = [
        cell(m, name, kind="negative", source=source, sibling=sibling)
        for name, source, sibling in (("x", "x", False), ("x, noise", "x", False), ("twin", "y", True))
        for m in "ab"
    ]
    assert [pair.source for pair in pair_methods(innocent, "a", "b").judged] == ["x", "x", "toy/owner"]
    (control,) = pair_methods([cell(m, "unattacked", attack="none", group="") for m in "ab"], "a", "b").judged
    assert control.source == "unattacked"


def test_a_method_is_found_by_preset_by_spec_and_by_its_name() -> None:
    chosen = REGISTRY.method("activemark-contrastive").canonical()
    cells = [cell(method, "x") for method in ("ipguard", chosen, "advtra:n_trajectories=3")]
    results = ResultSet([], cells)
    assert choose_methods(results, [], REGISTRY) == ["ipguard", chosen, "advtra:n_trajectories=3"]
    asked = ["activemark-contrastive", "advtra", "ipguard", chosen]
    assert choose_methods(results, asked, REGISTRY) == [chosen, "advtra:n_trajectories=3", "ipguard"]
    with pytest.raises(BadParamsError, match="no results of method 'ipgard'. Did you mean ipguard"):
        choose_methods(results, ["ipgard"], REGISTRY)


@pytest.mark.parametrize(
    ("attack", "threat", "thief"),
    [
        ("none", "unattacked", "deploys it as it is"),
        ("prune:amount=0.4", "removal", "prunes it"),
        ("prune:amount=0.4+prune:amount=0.2,criterion=random", "removal", "prunes it"),
        ("prune:amount=0.4+noise:sigma=0.1", "removal", SEVERAL),
        ("prune:amount=0.4+overwrite", "adaptive", "knows the method"),
        ("adaptive-unlearn:knows_key=true", "key leaked", "knows the key"),
        ("prune:amount=0.4+nothing-of-ours", "unknown", UNKNOWN),
        ("prune:amount=7", "unknown", UNKNOWN),
        ("<script>", "unknown", UNKNOWN),
    ],
)
def test_a_thief_is_what_he_knows_else_what_he_does(attack: str, threat: str, thief: str) -> None:
    asked = cell("m", "s", attack=attack)
    assert (THIEVES.threat(asked), THIEVES.thief(asked)) == (threat, thief)
    made_up = cell("m", "s", attack=attack, kind="forged")
    assert (THIEVES.threat(made_up), THIEVES.thief(made_up)) == ("forgery", "forges a key")


def test_without_plugins_nobody_is_known() -> None:
    nobody = Thieves(lambda _: None)
    assert nobody.threat(cell("m", "s", attack="prune:amount=0.4")) == "unknown"
    assert nobody.threat(cell("m", "s", attack="none")) == "unattacked"


def attacked(suspect: str, drop: float | None, claims: list[bool], destroyed: int = 0) -> list[Any]:
    """An attack at as many seeds as there are claims; the first few of the models are destroyed."""
    return [
        cell("m", suspect, claim, seed=seed, utility_drop=drop, destroyed=seed < destroyed)
        for seed, claim in enumerate(claims)
    ]


def test_the_thief_takes_what_removes_the_claim_and_keeps_most() -> None:
    cells = [
        *attacked("prune:amount=0.2", 0.0, [True, True, True]),
        *attacked("prune:amount=0.6", 0.03, [False, True, False]),
        *attacked("noise:sigma=0.1", 0.02, [False, True, True]),
        *attacked("prune:amount=0.8", 0.01, [False, False, False], destroyed=2),
        *attacked("overwrite", 0.0, [False, False, False]),
        *attacked("prune:amount=0.4+noise:sigma=0.1", 0.06, [False, False, False]),
    ]
    assert [each.suspect for each in list_removals(cells)] == [
        "overwrite",
        "prune:amount=0.6",
        "prune:amount=0.4+noise:sigma=0.1",
    ]
    least = least_removal(cells, THIEVES)
    assert least is not None
    assert least.suspect == "prune:amount=0.6"
    assert least.kept == pytest.approx(0.97)


def test_of_equals_the_thief_takes_the_shortest_and_what_is_unknown_comes_last() -> None:
    cells = [
        *attacked("prune:amount=0.4+noise:sigma=0.1", 0.02, [False]),
        *attacked("prune:amount=0.6", 0.02, [False]),
        *attacked("noise:sigma=0.1", None, [False]),
    ]
    found = list_removals(cells)
    assert [each.suspect for each in found] == [
        "prune:amount=0.6",
        "prune:amount=0.4+noise:sigma=0.1",
        "noise:sigma=0.1",
    ]
    assert found[-1].kept is None and found[-1].kept_over_seeds is None


def test_what_nothing_removes_has_no_removal_and_what_is_not_claimed_needs_none() -> None:
    assert least_removal(attacked("prune:amount=0.2", 0.0, [True]), THIEVES) is None
    control = cell("m", "unattacked", False, attack="none", group="", utility_drop=0.0, destroyed=False)
    least = least_removal([control, *attacked("prune:amount=0.2", 0.1, [False])], THIEVES)
    assert least is not None and least.suspect == "unattacked"


def test_every_attack_of_this_project_says_whom_it_stands_for() -> None:
    silent = [name for name, cls in REGISTRY.attacks.classes.items() if cls.thief == "does something else"]
    assert silent == []
