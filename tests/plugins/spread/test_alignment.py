"""Rewritten weights put back into the unmarked model's form: the mark is read again, and innocent models stay coins."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import kstest

import amb
from amb.evaluation.claims import exact_test
from amb.testing import ExactNull, toy_context, toy_model
from amb_attacks.structured import BlockWidths
from amb_spread.alignment import (
    Attention,
    Mlp,
    align,
    fit_basis,
    match_heads,
    match_neurons,
    read_block,
    restore_layers,
)
from amb_spread.weights import SpreadWeights
from amb_spread.weights_torch import measure_differences, read_differences

METHOD = SpreadWeights(n_messages=8, n_bits=16)
UNALIGNED = SpreadWeights(n_messages=8, n_bits=16, align=False)
REWRITINGS = [
    "permute-neurons",
    "permute-heads",
    "fold-norms",
    "change-basis",
    "reparametrize",
    "dummy-neurons",
    "dummy-neurons+reparametrize",
    "rotate-stream",
    "rotate-stream+dummy-neurons+reparametrize",
]


def lively(seed: int = 1) -> amb.VisionModel:
    """A toy whose norms and biases are not 1 and 0, as if it had been trained."""
    model, drawn = toy_model(seed=seed, n_classes=3), torch.Generator().manual_seed(3)
    for name, weight in model.backbone.named_parameters():
        if "norm" in name or "bias" in name:
            weight.data.add_(0.3 * torch.randn(weight.shape, generator=drawn))
    return model


OWNER = lively()


def attack(spec: str, model: amb.VisionModel, folder: Path, *axes: str) -> amb.VisionModel:
    for each in spec.split("+"):
        model = amb.get_attack(each).apply(model, toy_context(folder, *axes, roles=("attacker",), base=lambda: OWNER))
    return model


def read(method: SpreadWeights, model: amb.VisionModel, key: amb.Key, folder: Path) -> amb.Evidence:
    return method.extract(amb.SuspectView(model, "weights"), key, toy_context(folder, roles=(), base=lambda: OWNER))


def count_wrong(evidence: amb.Evidence) -> int:
    return int((evidence.expected != evidence.observed).sum())


@pytest.fixture(scope="module")
def embeddings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, amb.Embedding]:
    folder = tmp_path_factory.mktemp("marked")
    return {str(each): each.embed(OWNER, toy_context(folder)) for each in (METHOD, UNALIGNED)}


@pytest.mark.parametrize("spec", REWRITINGS)
def test_a_rewritten_mark_is_read_again(spec: str, embeddings: Any, tmp_path: Path) -> None:
    marked, key = embeddings[str(METHOD)].model, embeddings[str(METHOD)].key
    before = read(METHOD, marked, key, tmp_path).facts["T"]
    evidence = read(METHOD, attack(spec, marked, tmp_path), key, tmp_path)
    assert count_wrong(evidence) == 0
    assert evidence.facts["T"] > 0.8 * before


def test_without_alignment_rewriting_everything_removes_the_mark(embeddings: Any, tmp_path: Path) -> None:
    embedding = embeddings[str(UNALIGNED)]
    rewritten = attack("reparametrize", embedding.model, tmp_path)
    assert not exact_test(read(UNALIGNED, rewritten, embedding.key, tmp_path)).claim


def test_what_was_not_rewritten_is_left_alone(embeddings: Any, tmp_path: Path) -> None:
    marked = embeddings[str(METHOD)].model
    for spec in ("none", "prune60", "noise05"):
        suspect = attack(spec, marked, tmp_path)
        aligned, facts = align(suspect, OWNER)
        assert aligned is suspect
        assert facts == {}


def test_alignment_leaves_suspect_and_base_as_they_were(embeddings: Any, tmp_path: Path) -> None:
    suspect = attack("reparametrize", embeddings[str(METHOD)].model, tmp_path)
    digests = [each.digest() for each in (suspect, OWNER)]
    align(suspect, OWNER)
    assert [each.digest() for each in (suspect, OWNER)] == digests


def test_rewriting_the_unmarked_model_comes_out_as_it_was(tmp_path: Path) -> None:
    aligned, _ = align(attack("permute-neurons", OWNER, tmp_path), OWNER)
    for back, matrix in zip(aligned.matrices(), OWNER.matrices(), strict=True):
        assert torch.equal(back.weight, matrix.weight), "so that p is 1"
    aligned, _ = align(attack("reparametrize", OWNER, tmp_path), OWNER)
    for back, matrix in zip(aligned.matrices(), OWNER.matrices(), strict=True):
        torch.testing.assert_close(back.weight, matrix.weight, rtol=1e-3, atol=1e-4)


def test_removed_units_say_nothing_and_the_rest_is_read(embeddings: Any, tmp_path: Path) -> None:
    owner = amb.load_model("tiny/owner")
    method = SpreadWeights(n_messages=16, n_bits=32)
    embedding = method.embed(owner, toy_context(tmp_path))
    context = toy_context(tmp_path, roles=(), base=lambda: owner)
    cut = amb.edited(embedding.model, BlockWidths(heads=(2,) * 6, channels=(200,) * 6))
    aligned, _ = align(cut, owner)
    for part, n in zip(read_block(aligned.backbone.parts(0)), (2, 200), strict=True):
        assert int(part[0].flatten(1).abs().sum(dim=1).count_nonzero()) == n
    assert count_wrong(method.extract(amb.SuspectView(cut, "weights"), embedding.key, context)) == 0


class Rounded(torch.nn.Module):
    """A layer that keeps its weights in another form than a plain one, as int8 layers do."""

    def __init__(self, layer: torch.nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features, self.bias = layer.in_features, layer.out_features, layer.bias
        self.scale = layer.weight.detach().abs().amax(dim=1, keepdim=True) / 127
        self.register_buffer("codes", (layer.weight.detach() / self.scale).round().to(torch.int8))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x @ (self.codes * self.scale).T + self.bias


def test_layers_of_another_arithmetic_are_read_by_what_they_do() -> None:
    owner = amb.load_model("tiny/owner")
    rounded = owner.copy()
    mlp = rounded.backbone.net.blocks[2].mlp
    mlp.fc1 = Rounded(mlp.fc1)
    assert rounded.backbone.parts(2) is None
    restored, plain = (model.backbone.parts(2).up for model in (restore_layers(rounded), owner))
    off = (restored.weight - plain.weight).abs()
    assert off.max() > 0 and (off <= 0.51 * mlp.fc1.scale).all()
    torch.testing.assert_close(restored.bias, plain.bias)
    assert restore_layers(owner) is owner


# The steps, each against what made the difference


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_neurons_are_matched_merged_and_dropped() -> None:
    ours = Mlp(drawn(20, 6), drawn(20, 6, seed=1))
    order = torch.randperm(20, generator=torch.Generator().manual_seed(2))
    up, down = ours.up[order], ours.down[order].clone()
    split = down[3] * 0.3
    down[3] -= split  # neuron 3 does a part of its work in a twin, and two that read the same cancel out
    extra = drawn(6, seed=5)[None]
    theirs = Mlp(torch.cat([up, up[3:4], extra, extra]), torch.cat([down, split[None], extra, -extra]))
    for found, wanted in zip(match_neurons(ours, theirs), ours, strict=True):
        torch.testing.assert_close(found, wanted)


def test_fewer_neurons_leave_gaps() -> None:
    ours = Mlp(drawn(20, 6), drawn(20, 6, seed=1))
    found = match_neurons(ours, Mlp(ours.up[5:], ours.down[5:]))
    assert (found.up[:5] == 0).all()
    assert torch.equal(found.down[5:], ours.down[5:])


def test_heads_are_matched_whatever_their_basis() -> None:
    ours = Attention(*(drawn(5, 4, 12, seed=seed) for seed in range(4)))
    order, basis = torch.tensor([3, 1, 4, 0, 2]), drawn(5, 4, 4, seed=9)
    back = torch.linalg.inv(basis).mT
    turned = Attention(basis @ ours.query, back @ ours.key, back @ ours.value, basis @ ours.output)
    found = match_heads(ours, Attention(*(each[order] for each in turned)))
    for one, wanted in zip(found, turned, strict=True):
        torch.testing.assert_close(one, wanted)


def test_the_basis_is_found_up_to_the_noise() -> None:
    first, second, basis = drawn(3, 6, 24), drawn(3, 6, 24, seed=1), drawn(3, 6, 6, seed=2)
    noise = [0.05 * drawn(3, 6, 24, seed=seed) for seed in (3, 4)]
    back = torch.linalg.inv(basis).mT
    exact = fit_basis(first, second, basis @ first, back @ second)
    torch.testing.assert_close(exact[0], first)
    torch.testing.assert_close(exact[1], second)
    noisy = fit_basis(first, second, basis @ (first + noise[0]), back @ (second + noise[1]))
    missed = [float((found - ours).norm()) for found, ours in zip(noisy, (first, second), strict=True)]
    assert np.hypot(*missed) <= np.hypot(*(float(each.norm()) for each in noise)), (
        "no farther than the true basis leaves it"
    )


# The null


def read_aligned(method: SpreadWeights, key: amb.Key, model: amb.VisionModel, to: amb.VisionModel) -> amb.Evidence:
    return read_differences(method, key, OWNER, measure_differences(align(model, to)[0], OWNER))


class TestNullWithAlignment(ExactNull):
    """Innocent models that alignment changes; each is aligned once, for no key has a say in it."""

    @pytest.fixture
    def method(self) -> amb.Method:
        return METHOD

    @pytest.fixture
    def owner(self) -> amb.VisionModel:
        return OWNER

    @pytest.fixture
    def innocents(self, method: amb.Method, owner: amb.VisionModel, tmp_path: Path) -> Mapping[str, amb.VisionModel]:
        other_key = method.embed(owner, toy_context(tmp_path, "another")).model
        made = {
            "rewritten other key": attack("reparametrize", other_key, tmp_path),
            "another model": lively(2),
        }
        for model in made.values():
            aligned, undone = align(model, owner)
            assert undone, "else the test shows nothing"
            self.differences[id(model)] = list(measure_differences(aligned, owner))
        return made

    @pytest.fixture(autouse=True)
    def forget(self) -> None:
        self.differences: dict[int, Any] = {}

    def read(self, method: Any, key: amb.Key, model: Any, owner: Any, folder: Path) -> amb.Evidence:
        if id(model) not in self.differences:
            return super().read(method, key, model, owner, folder)
        return read_differences(method, key, owner, self.differences[id(model)])


def test_aligning_to_the_marked_model_would_leak_the_key(tmp_path: Path) -> None:
    """The same innocent model, the same statistic: only what it is aligned to differs."""
    method, innocent = SpreadWeights(n_messages=8, n_bits=16, strength=0.2), lively(2)
    found: dict[str, list[float]] = {"unmarked": [], "marked": []}
    for draw in range(8):
        embedding = method.embed(OWNER, toy_context(tmp_path, f"key {draw}"))
        for name, to in (("unmarked", OWNER), ("marked", embedding.model)):
            found[name].append(exact_test(read_aligned(method, embedding.key, innocent, to)).p_value)
    smaller = {name: kstest(values, "uniform", alternative="greater").pvalue for name, values in found.items()}
    assert smaller["unmarked"] > 0.01
    assert smaller["marked"] < 1e-4
