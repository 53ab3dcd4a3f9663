"""Plans that are streams: every suspect as an eager list has it, a hundred thousand of them in bounded memory."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from amb.api.plan import EMBEDDED, Suspect, Suspects, digest_suspects
from amb.errors import BadParamsError
from amb.execution.identity import identify_plan
from amb.execution.planning import MOST_COMPARED, make_plan, with_seed
from amb.plugin.manager import Manager
from amb.runtime.compute import Compute
from tests.conftest import QUICK
from tests.installed import install_plugin

ROOT = Path(__file__).parents[2]
ATTACKS = [
    "prune40",
    "none",
    "forge-messages",
    "noise+prune:amount=0.4",
    "prune:amount=0.4",
    "none+noise",
    "forge-secret",
]


def list_eagerly(manager: Manager, attacks: list[str]) -> list[Suspect]:
    """The suspects of the toy suite, spelled out one by one: innocent, forged, control, attacked."""
    chains = {text: manager.registry.attack_chain(text) for text in attacks}
    other = Suspect("toy/other", "toy/other", (), "negative", group="other-seed")
    unmarked = Suspect("unmarked owner", "toy/owner", (), "negative", True, "sibling")
    more = [
        Suspect("toy/other, prune20", "toy/other", manager.registry.attack_chain("prune20"), "negative", group="other-seed"),
        Suspect("unmarked owner, prune20", "toy/owner", manager.registry.attack_chain("prune20"), "negative", True, "sibling"),
    ]  # fmt: skip
    forged = [
        Suspect(f"{text} on {each.name}", each.source, chains[text], "forged", each.sibling, each.group)
        for text in attacks
        if text.startswith("forge")
        for each in (other, unmarked)
    ]
    control = Suspect("unattacked", EMBEDDED, (), "positive")
    attacked = [
        Suspect(text, EMBEDDED, chains[text], "positive", group="+".join(each.name for each in chains[text]))
        for text in attacks
        if not text.startswith("forge")
    ]
    return [other, unmarked, *more, *forged, control, *attacked]


def test_suspects_are_those_of_an_eager_list(manager: Manager) -> None:
    plan = make_plan(manager.registry, suite="toy", methods=[QUICK], attacks=ATTACKS, negatives=2)
    kept = ["prune40", "forge-messages", "noise+prune:amount=0.4", "forge-secret"]
    expected = list_eagerly(manager, [*kept, "noise"])
    found = {each.name: each for each in plan.suspects}
    assert list(plan.suspects) == expected
    assert [plan.suspects[at] for at in range(len(plan.suspects))] == expected
    assert plan.suspects[-1] == expected[-1]
    assert plan.suspects[2:-1] == tuple(expected[2:-1])
    assert len(found) == len(expected) == len(plan.suspects)
    with pytest.raises(IndexError):
        plan.suspects[len(expected)]
    assert pickle.loads(pickle.dumps(plan.suspects)) == tuple(expected)
    assert plan.n_cells == len(plan.cells()) == len(list(plan.stream_cells()))
    assert plan.references() == ["toy/owner", "toy/other"]


def test_a_mistake_in_any_chain_is_found_when_the_plan_is_made(manager: Manager) -> None:
    many = [f"prune:amount={n / 100_000}" for n in range(1, MOST_COMPARED + 10)]
    with pytest.raises(BadParamsError, match="amount"):
        make_plan(manager.registry, suite="toy", methods=[QUICK], attacks=[*many, "prune:amount=7"])
    with pytest.raises(BadParamsError, match="stands at the end"):
        make_plan(manager.registry, suite="toy", methods=[QUICK], attacks=[*many, "forge-messages+prune40"])


def test_of_many_chains_equal_spellings_are_one(manager: Manager) -> None:
    many = [f"prune:amount={n / 100_000}" for n in range(1, MOST_COMPARED + 2)]
    plan = make_plan(manager.registry, suite="toy", methods=[QUICK], attacks=[*many, many[0], "none", "none+none"])
    assert len(plan.suspects) == 2 + 1 + len(many)
    assert len({each.name for each in plan.suspects}) == len(plan.suspects)


def test_a_plan_is_identified_by_all_that_its_results_follow_from(manager: Manager) -> None:
    asked = {"suite": "toy", "methods": [QUICK], "attacks": ["prune40"]}
    plan = make_plan(manager.registry, **asked)
    others = [
        with_seed(plan, 1),
        plan.on(Compute(precision="bf16")),
        *(
            make_plan(manager.registry, **{**asked, **change})
            for change in (
                {"attacks": ["prune20"]}, {"attacks": []}, {"methods": ["ipguard"]}, {"tau": 1}, {"alpha": 0.1},
                {"level": 1e-3}, {"negatives": 1}, {"model": "toy/other"},
            )
        ),
    ]  # fmt: skip
    digests = [identify_plan(each, manager.registry) for each in (plan, *others)]
    assert len(set(digests)) == len(digests)
    assert identify_plan(make_plan(manager.registry, **asked), manager.registry) == digests[0]
    assert isinstance(plan.suspects, Suspects)
    assert digest_suspects(plan.suspects) == digest_suspects(tuple(plan.suspects))


MEASURE = """
import json, resource, sys
from amb.execution.planning import make_plan
from amb.plugin.manager import manager
def mib(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
registry = manager().registry
chains = [f"touch:a={a},b={b}" for a in range(1, int(sys.argv[1]) // 100 + 1) for b in range(1, 101)]
before = mib()
plan = make_plan(registry, suite="scale", methods=["noop"], attacks=chains)
seen = sum(len(each.attacks) for each in plan.suspects)
print(json.dumps([plan.n_cells, seen, mib() - before]))
"""


def test_a_hundred_thousand_cells_take_bounded_memory(tmp_path: Path) -> None:
    """The chains' texts are kept and nothing else: as suspects they would take more than 150 MiB."""
    install_plugin(tmp_path, "amb-scale", {"scale": "synthetic"})
    path = os.pathsep.join(map(str, [tmp_path, ROOT / "benchmarks/speed/scale", ROOT, ROOT / "plugins"]))
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, "100000"], env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=True
    )  # fmt: skip
    n_cells, seen, mib = json.loads(done.stdout)
    assert n_cells == 100_002
    assert seen == 100_000
    assert mib < 50
