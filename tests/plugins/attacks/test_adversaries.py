"""What attackers know, keys that are made up, suspects that were destroyed or say little: whole runs on the toy suite."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch

import amb
from amb.api.run import Run
from amb.errors import BadParamsError
from amb.execution.planning import make_plan, n_suspects
from amb.plugin.manager import Manager
from amb.testing.toy import ToyMethod
from tests.conftest import run_toy


class Spy(amb.Attack):
    """Notes what it was given."""

    name: ClassVar[str] = "spy"
    wants: amb.Knows = "model"
    """What it says that it knows."""

    @property
    def knows(self) -> amb.Knows:
        return self.wants

    def apply(self, model: amb.VisionModel, ctx: amb.Context) -> amb.VisionModel:
        assert ctx.base is not None
        ctx.note(method=ctx.method and ctx.method.name, key=ctx.key and ctx.key.digest, base=ctx.base().digest())
        return model.copy()


class Wreck(amb.Attack):
    """Set every weight to zero: nothing is left."""

    name: ClassVar[str] = "wreck"

    def apply(self, model: amb.VisionModel, ctx: amb.Context) -> amb.VisionModel:
        wrecked = model.copy()
        for weight in wrecked.parameters():
            weight.data.zero_()
        return wrecked


class TakeLabels(amb.Forgery):
    """Claim whatever the innocent model says."""

    name: ClassVar[str] = "take-labels"

    def skip_method(self, method: amb.Method) -> str | None:
        return None if "messages" in method.forgeries else f"{method.name} has no messages"

    def forge(self, model: amb.VisionModel, ctx: amb.Context) -> amb.Key:
        assert ctx.method is not None
        ctx.note(budget=1)
        return ctx.method.forge(
            model,
            "messages",
            1,
            amb.Context(ctx.axes, {"trigger": ctx.split("attacker")}, ctx.folder, method=ctx.method),
        )


class Mute(amb.Edit):
    """Answer with labels alone."""

    name: ClassVar[str] = "mute"

    def apply(self, model: amb.VisionModel) -> None:
        model.max_access = "labels"


class Muzzle(amb.Attack):
    """Deploy the model so that it tells nothing but its decisions."""

    name: ClassVar[str] = "muzzle"

    def apply(self, model: amb.VisionModel, ctx: amb.Context) -> amb.VisionModel:
        return amb.edited(model, Mute())


class Without(ToyMethod):
    """The same, without anything to forge."""

    name: ClassVar[str] = "without"
    forgeries: ClassVar[dict[str, str]] = {}


class Adversaries:
    """The components above, as a plugin."""

    @amb.hookimpl
    def amb_register_methods(self) -> list[Any]:
        return [ToyMethod, Without]

    @amb.hookimpl
    def amb_register_attacks(self) -> list[Any]:
        return [Spy, Wreck, TakeLabels, Muzzle]

    @amb.hookimpl
    def amb_register_edits(self) -> list[Any]:
        return [Mute]


@pytest.fixture
def adversaries(manager: Manager) -> Manager:
    manager.register(Adversaries(), "adversaries")
    return manager


def by_suspect(run: Run) -> dict[str, Any]:
    return {result.cell.suspect: result for result in run.results}


def test_an_attack_gets_what_it_declares_and_no_more(adversaries: Manager, tmp_path: Path) -> None:
    attacks = ["spy", "spy:wants=method", "spy:wants=key"]
    run = run_toy(adversaries, tmp_path, attacks=attacks)
    digests = run.embeddings[0].digests
    told = [next(iter(by_suspect(run)[name].report.values())) for name in attacks]
    assert [facts["method"] for facts in told] == [None, "activemark", "activemark"]
    assert [facts["key"] for facts in told] == [None, None, digests["key"]]
    assert {facts["base"] for facts in told} == {digests["owner"]}, "the public model, before it was marked"


def test_a_destroyed_suspect_is_marked_and_no_other(adversaries: Manager, tmp_path: Path) -> None:
    results = by_suspect(run_toy(adversaries, tmp_path, attacks=["wreck", "prune20"]))
    assert results["wreck"].destroyed
    assert results["wreck"].utility_drop > 0.1
    assert not results["unattacked"].destroyed
    assert results["unattacked"].utility_drop == 0
    assert results["toy/other"].utility_drop is None, "the gate is for positives"


def test_no_student_is_trained_that_the_method_could_not_read(adversaries: Manager, tmp_path: Path) -> None:
    attacks = ["distill:target=feature-mse,student=resnet10t,epochs=1,n_images=16,batch=8"]
    results = by_suspect(run_toy(adversaries, tmp_path, attacks=attacks))
    assert results[attacks[0]].status == "skipped"
    assert results[attacks[0]].reason.endswith("has no transformer blocks to write a message between")
    assert not (tmp_path / "store" / "model").exists(), "nothing was trained"


def test_a_forged_key_is_a_false_claim_and_stays_out_of_the_negatives(adversaries: Manager, tmp_path: Path) -> None:
    plain = by_suspect(run_toy(adversaries, tmp_path, methods=["toy"], attacks=["prune20"]))
    results = by_suspect(run_toy(adversaries, tmp_path, methods=["toy"], attacks=["prune20", "take-labels"]))
    forged = results["take-labels on toy/other"]
    assert forged.cell.kind == "forged"
    assert forged.verdict.detection_rate == 1.0
    assert forged.digests["key"] != results["prune20"].digests["key"]
    assert forged.report == {"take-labels": {"budget": 1}}
    assert results["take-labels on unmarked owner"].status == "skipped", "a fingerprint's owner is no innocent model"
    assert results["prune20"].verdict == plain["prune20"].verdict


def test_a_forgery_that_a_method_does_not_offer_is_skipped(adversaries: Manager, tmp_path: Path) -> None:
    results = by_suspect(run_toy(adversaries, tmp_path, methods=["without"], attacks=["take-labels"]))
    assert results["take-labels on toy/other"].reason == "without has no messages"


def test_a_forgery_ends_its_chain(adversaries: Manager) -> None:
    with pytest.raises(BadParamsError, match="at the end of its chain"):
        make_plan(adversaries.registry, suite="toy", methods=["toy"], attacks=["take-labels+prune20"])


def test_a_suspect_that_tells_labels_alone_is_skipped_by_who_needs_more(adversaries: Manager, tmp_path: Path) -> None:
    results = by_suspect(run_toy(adversaries, tmp_path, attacks=["muzzle"]))
    assert results["muzzle"].reason == "muzzle answers with labels alone; activemark needs weights"


def test_an_edited_model_is_built_again_from_its_card(adversaries: Manager, tmp_path: Path) -> None:
    model = amb.edited(amb.load_model("toy/owner"), Mute())
    amb.save_checkpoint(model, tmp_path / "model")
    assert amb.load_checkpoint(tmp_path / "model", "again", amb.build_model).max_access == "labels"


@pytest.mark.parametrize(
    "edit", ["mute", {"name": "rm"}, {"name": "mute", "parameters": {"path": "/"}}, {"name": "x", "parameters": {}}]
)
def test_a_strangers_edit_is_refused(adversaries: Manager, edit: Any) -> None:
    architecture = {**amb.load_model("toy/owner").architecture, "edits": [edit]}
    with pytest.raises(amb.CheckpointError, match="cannot be replayed"):
        amb.build_model(architecture)


# Negatives by the number


def test_as_many_negatives_as_asked_all_different(adversaries: Manager) -> None:
    plan = make_plan(adversaries.registry, suite="toy", methods=["toy"], attacks=[], negatives=9)
    extra = [suspect for suspect in plan.suspects if suspect.kind == "negative"][2:]
    assert len({(suspect.source, suspect.attack) for suspect in extra}) == len(extra) == 9
    assert extra[0].name == "toy/other, prune20"
    assert extra[-1].name == "toy/other, noise:sigma=0.05,draw=4"
    assert n_suspects(adversaries.registry, plan.suite, ["take-labels", "prune20"], 9) == len(
        make_plan(
            adversaries.registry, suite="toy", methods=["toy"], attacks=["take-labels", "prune20"], negatives=9
        ).suspects
    )


@pytest.mark.parametrize("n", [-1, 10**9])
def test_a_senseless_number_of_negatives_is_refused(adversaries: Manager, n: int) -> None:
    with pytest.raises(BadParamsError, match="negatives must be"):
        make_plan(adversaries.registry, suite="toy", methods=["toy"], attacks=[], negatives=n)


def test_further_negatives_are_read_and_judged(adversaries: Manager, tmp_path: Path) -> None:
    results = run_toy(adversaries, tmp_path, methods=["toy"], attacks=[], negatives=4).results
    own = results[-1].verdict
    assert own.n_negatives == 3, "toy/other and its two perturbations; siblings of a fingerprint are copies of it"
    assert own.fpr_supported == pytest.approx(1 / 4)


def test_filters_act_on_the_deployed_model_only() -> None:
    model = amb.load_model("tiny/owner").copy()
    images = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        plain = model.features(images)
        model.input_filters.append(lambda x: 1 - x)
        model.output_filters.append(torch.round)
        filtered = model.features(images)
        assert torch.equal(filtered, filtered.round())
        assert not torch.allclose(filtered, plain, atol=0.6)
        torch.testing.assert_close(model.train().features(images), plain)
