"""What a plan is said to cost: declared work against images counted on their way, and the command that prints it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from torch import nn

import amb
from amb.api.types import Fetch, Work
from amb.cli import cli
from amb.execution import cost
from amb.execution.planning import make_plan
from amb.report.layouts.cost import fetch_table
from amb.testing import toy_context, toy_model
from tests.conftest import QUICK


class Counted:
    """A toy model that counts the images that pass through it and its copies, a block as its share of the depth."""

    def __init__(self) -> None:
        self.model = toy_model(n_classes=3)
        self.read = self.trained = 0.0

        def count(_: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
            share = len(inputs[0]) / self.model.n_blocks
            self.trained += share * output.requires_grad
            self.read += share * (not output.requires_grad)

        for block in self.model.backbone.blocks:
            block.register_forward_hook(count)  # a function is not copied with a model, as a method would be


METHODS = [QUICK, f"{QUICK},fidelity=clean", f"{QUICK},block=0,contrast=0.5", f"{QUICK},messages=fresh,fidelity=marked"]
ATTACKS = [
    "finetune:epochs=2,n_images=32,batch=16",
    "linear-probe:epochs=2,n_images=32,batch=16",
    "adversarial:epochs=2,n_images=16,steps=3",
    "distill:target=feature-mse,epochs=2,n_images=32,batch=16",
    "distill:target=token-mse,epochs=2,n_images=32,batch=16",
    "cut-rear1:epochs=2,n_images=32,batch=16",
    "prune40",
    "quantize4",
]


@pytest.mark.parametrize("spec", METHODS)
def test_a_method_says_how_many_images_it_passes(manager, tmp_path: Path, spec: str) -> None:
    method, counted = manager.registry.method(spec, {"steps": "20"}), Counted()
    ctx = toy_context(tmp_path, roles=("owner", "trigger"))
    embedding = method.embed(counted.model, ctx)
    work = method.work(counted.model.facts())
    assert counted.trained == pytest.approx(work.trained, rel=0.1)
    assert counted.read == pytest.approx(work.read, rel=0.2, abs=70), "a profile of the paper's 100 images, of 64 here"
    reading = Counted()
    method.extract(amb.SuspectView(reading.model, method.access), embedding.key, toy_context(tmp_path, roles=()))
    assert reading.read == method.query_work().read


@pytest.mark.parametrize("spec", ATTACKS)
def test_an_attack_says_how_many_images_it_passes(manager, tmp_path: Path, spec: str) -> None:
    (attack,), counted = manager.registry.attack_chain(spec), Counted()
    attack.apply(counted.model, toy_context(tmp_path, roles=("attacker",)))
    work = attack.work(manager.registry.method(QUICK, {}), counted.model.facts())
    if attack.name == "distill":  # the student has no hooks: only what was asked of the model is counted
        assert counted.read == pytest.approx(work.read, abs=4)
    else:
        assert counted.trained == pytest.approx(work.trained, rel=0.1)
        assert counted.read == pytest.approx(work.read, rel=0.1, abs=4)


def test_an_overwrite_costs_its_embeddings_and_a_forgery_is_not_known(manager) -> None:
    method, facts = manager.registry.method(QUICK, {}), toy_model().facts()
    (twice,), (forged,) = (manager.registry.attack_chain(text) for text in ("overwrite:times=2", "forge-decoder"))
    assert twice.work(method, facts) == method.work(facts).times(2)
    assert forged.work(method, facts) is None


def test_flops_are_those_of_the_formula() -> None:
    model = toy_model()
    step = cost.measure_step(model.train(), "cpu")  # torch's own block takes a shortcut that is not counted
    tokens, dim = model.facts().n_tokens, model.facts().dim
    hidden = model.backbone.blocks[0].linear1.out_features
    linear = 2 * tokens * dim * (4 * dim + 2 * hidden)
    attention = 2 * 2 * tokens * tokens * dim
    blocks = model.n_blocks * (linear + attention)
    assert step.flops == pytest.approx(blocks, rel=0.15), "beside the blocks there is the patch embedding"
    assert step.flops >= blocks - model.n_blocks * attention, "torch before 2.15 does not count attention on a CPU"
    assert cost.flops_of(Work(read=2, trained=3), step) == pytest.approx(11 * step.flops)
    assert step.n_parameters == sum(weight.numel() for weight in model.parameters())


def test_shares_add_up_over_methods_and_suspects(manager) -> None:
    plan = make_plan(manager.registry, suite="toy", methods=[QUICK], attacks=["finetune-constant", "forge-decoder"])
    facts = toy_model().facts()
    shares = {share.name: share for share in cost.list_work(plan, facts)}
    n_tuned = sum("finetune" in suspect.attack for suspect in plan.suspects)
    n_keys = sum("overwrite" in suspect.attack for suspect in plan.suspects)
    n_forged = sum(suspect.kind == "forged" for suspect in plan.suspects)
    tuned = manager.registry.attack_chain("finetune-constant")[0].work(plan.methods[0], facts)
    expected = tuned.times(n_tuned) + plan.methods[0].work(facts).times(n_keys)
    assert shares["attacks on activemark"].work == expected
    assert shares["attacks on activemark, not known beforehand"].times == n_forged
    assert shares["extract activemark"].work.read == 8 * len(plan.suspects)


def test_missing_data_is_named_with_its_size() -> None:
    table = fetch_table([
        Fetch("weights of a/b", "a/b", 3 * 2**30, cached=False), Fetch("pet", "https://x", None, cached=True),
    ])  # fmt: skip
    assert table.texts() == [["weights of a/b", "missing", "3.00", "a/b"], ["pet", "here", "–", "https://x"]]
    assert table.notes[0].startswith("1 of 2 missing, 3.00 GiB")


@pytest.fixture
def result(manager, tmp_path: Path) -> Iterator[dict[str, Any]]:
    done = CliRunner().invoke(
        cli, ["plan", "--suite", "toy", "--method", QUICK, "--attack", "prune40", "--format", "json"]
    )
    assert done.exit_code == 0, done.output
    yield json.loads(done.stdout)
    assert not list(tmp_path.iterdir()), "nothing is written"


def test_the_command_prints_json_for_scripts(result: dict[str, Any]) -> None:
    plan = result["plan"]
    assert plan["cells"] > 1
    assert plan["total"]["seconds"] == pytest.approx(sum(part.get("seconds", 0) for part in plan["work"]))
    assert plan["step"]["facts"]["ref"] == plan["owner"]
