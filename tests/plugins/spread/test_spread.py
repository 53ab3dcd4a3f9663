"""Spread-spectrum marks: streams from a secret, bits that are coins on innocent models, and marks that are read."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom, kstest

import amb
from amb.evaluation.claims import exact_test
from amb.testing import ExactNull, toy_context, toy_model
from amb_spread.alignment import align
from amb_spread.features import SpreadFeatures
from amb_spread.features_torch import align_answers, read_answers
from amb_spread.weights import SpreadWeights
from amb_spread.weights_torch import measure_differences, read_differences, spread_by_bit, sum_by_bit

FEATURES = SpreadFeatures(n_messages=1, n_bits=16, steps=300, batch=32, n_images=256, n_triggers=128)
WEIGHTS = SpreadWeights(n_messages=8, n_bits=16)


# Streams


def test_a_stream_is_shake_256_of_all_that_it_hangs_on() -> None:
    parts = [b"amb-spread/1", b"s" * 32, b"spec", b"model"]
    text = b"".join(len(part).to_bytes(8, "big") + part for part in parts) + b"signs"
    assert amb.Streams("amb-spread/1", b"s" * 32, ("spec", "model")).draw_bytes("signs", 40) == hashlib.shake_256(
        text
    ).digest(40)


def test_every_part_changes_every_stream() -> None:
    made = [
        amb.Streams("amb-spread/1", secret, context).draw_bytes(purpose, 16)
        for secret in (b"a" * 32, b"b" * 32)
        for context in (("x", "y"), ("xy", ""), ("x", "z"))
        for purpose in ("one", "two")
    ]
    assert len(set(made)) == 12


def test_draws_are_standard_normal_and_symmetric() -> None:
    drawn = amb.Streams("amb-spread/1", b"s" * 32, ()).draw_normals("carrier", 20_000)
    assert kstest(drawn, "norm").pvalue > 0.01
    signs = amb.Streams("amb-spread/1", b"s" * 32, ()).draw_signs("messages", 100, 200)
    assert abs(signs.mean()) < 4 / 20_000**0.5
    directions = amb.Streams("amb-spread/1", b"s" * 32, ()).draw_directions("u", 50, 7)
    np.testing.assert_allclose(np.linalg.norm(directions, axis=1), 1, rtol=1e-5)


@given(n=st.integers(1, 200), start=st.integers(0, 40), n_bits=st.integers(1, 41))
def test_weights_belong_to_bits_in_turns(n: int, start: int, n_bits: int) -> None:
    start %= n_bits
    bits = (start + np.arange(n)) % n_bits
    terms = np.arange(1, n + 1, dtype=np.float32)
    np.testing.assert_array_equal(sum_by_bit(terms, start, n_bits), np.bincount(bits, terms, minlength=n_bits))
    signs = amb.Streams("amb-spread/1", b"s" * 32, ()).draw_signs("messages", n_bits)
    np.testing.assert_array_equal(spread_by_bit(signs, start, n), signs[bits])


def test_each_weight_moves_by_the_strength_and_t_is_the_correlation(marked: Any, tmp_path: Path) -> None:
    owner, embedding = marked[WEIGHTS.name]
    pairs = [
        ((theirs.weight - ours.weight).detach() / ours.weight.std().item(), ours)
        for theirs, ours in zip(embedding.model.matrices(), owner.matrices(), strict=True)
    ]
    for change, _ in pairs:
        torch.testing.assert_close(change.abs(), torch.full_like(change, WEIGHTS.strength), rtol=1e-3, atol=1e-5)
    n = sum(change.numel() for change, _ in pairs)
    evidence = read(WEIGHTS, embedding.model, embedding.key, owner, tmp_path)
    assert evidence.facts["T"] == pytest.approx(n**0.5, rel=1e-3)  # n moves of one size, all the right way


# The exact null


class TestWeights(ExactNull):
    @pytest.fixture
    def method(self) -> amb.Method:
        return WEIGHTS

    def read(self, method: Any, key: amb.Key, model: Any, owner: Any, folder: Path) -> amb.Evidence:
        """A model is aligned once: that knows nothing of the key."""
        if id(model) not in self.aligned:
            self.aligned[id(model)] = (model, list(measure_differences(align(model, owner)[0], owner)))
        return read_differences(method, key, owner, self.aligned[id(model)][1])

    @pytest.fixture(autouse=True)
    def forget(self) -> None:
        self.aligned: dict[int, Any] = {}


class TestFeatures(ExactNull):
    @pytest.fixture
    def method(self) -> amb.Method:
        return FEATURES

    def read(self, method: Any, key: amb.Key, model: Any, owner: Any, folder: Path) -> amb.Evidence:
        """The answers of a model are asked for once: another key has the same triggers."""
        if id(model) not in self.answers:
            images = torch.from_numpy(key.tensors["triggers"]).float() / 255
            self.answers[id(model)] = (model, amb.SuspectView(model, "features").features(images))
        return read_answers(method, self.answers[id(model)][1], key)

    @pytest.fixture(autouse=True)
    def forget(self) -> None:
        self.answers: dict[int, Any] = {}


def test_a_method_that_learns_its_decoder_breaks_the_promise(tmp_path: Path) -> None:
    class Learner(ExactNull):
        n_keys = 8

    learner = amb.get_method("activemark:n_bits=8,n_triggers=8,steps=150,batch=8,n_images=16,lr=0.003,coder_lr=0.01")
    owner = toy_model(seed=1, n_classes=3)
    relative = {"relative": learner.embed(owner, toy_context(tmp_path, "another")).model}
    with pytest.raises(AssertionError, match="too small too often"):
        Learner().test_p_is_super_uniform_on_innocent_models(learner, owner, relative, tmp_path)


@pytest.mark.parametrize("method", [FEATURES, WEIGHTS], ids=lambda method: method.name)
def test_a_difference_of_nothing_is_no_coin(method: amb.Method, marked: Any, tmp_path: Path) -> None:
    owner, embedding = marked[method.name]
    assert exact_test(read(method, owner, embedding.key, owner, tmp_path)).p_value == 1


# Marks


def read(
    method: amb.Method, model: amb.VisionModel, key: amb.Key, owner: amb.VisionModel, folder: Path
) -> amb.Evidence:
    context = toy_context(folder, roles=(), base=lambda: owner)
    return method.extract(amb.SuspectView(model, method.access), key, context)


@pytest.fixture(scope="module")
def marked(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, tuple[amb.VisionModel, amb.Embedding]]:
    folder, owner = tmp_path_factory.mktemp("marked"), toy_model(seed=1, n_classes=3)
    return {each.name: (owner, each.embed(owner, toy_context(folder))) for each in (FEATURES, WEIGHTS)}


@pytest.mark.parametrize("method", [FEATURES, WEIGHTS], ids=lambda method: method.name)
def test_the_mark_is_claimed_at_the_exact_level(method: amb.Method, marked: Any, tmp_path: Path) -> None:
    owner, embedding = marked[method.name]
    evidence = read(method, embedding.model, embedding.key, owner, tmp_path)
    right = int((evidence.expected == evidence.observed).sum())
    test = exact_test(evidence, 1e-3)
    assert test.claim
    assert test.p_value == pytest.approx(binom.sf(right - 1, evidence.expected.size, 0.5))


@pytest.mark.parametrize("method", [FEATURES, WEIGHTS], ids=lambda method: method.name)
def test_the_marked_model_is_close_to_the_unmarked(method: amb.Method, marked: Any) -> None:
    owner, embedding = marked[method.name]
    images = torch.rand(32, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        cosine = torch.nn.functional.cosine_similarity(owner.features(images), embedding.model.features(images))
    assert 0.9 < cosine.mean() < 1


def test_pruned_weights_say_nothing_and_the_rest_is_read(marked: Any, tmp_path: Path) -> None:
    owner, embedding = marked[WEIGHTS.name]
    pruned = amb.get_attack("prune40").apply(embedding.model, toy_context(tmp_path))
    assert exact_test(read(WEIGHTS, pruned, embedding.key, owner, tmp_path)).claim
    plain = amb.get_attack("prune40").apply(owner, toy_context(tmp_path))
    assert exact_test(read(WEIGHTS, plain, embedding.key, owner, tmp_path)).p_value == 1, "a pruned unmarked model"


def test_turned_embeddings_are_turned_back_without_the_secret(marked: Any, tmp_path: Path) -> None:
    _, embedding = marked[FEATURES.name]
    images = torch.from_numpy(embedding.key.tensors["triggers"]).float() / 255
    answers = amb.SuspectView(embedding.model, "features").features(images)
    turn = torch.linalg.qr(torch.randn(answers.shape[1], answers.shape[1], generator=torch.Generator().manual_seed(1)))[
        0
    ]
    straight, turned = (read_answers(FEATURES, each, embedding.key) for each in (answers, 3 * answers @ turn))
    assert turned.facts["aligned"] and not straight.facts["aligned"]
    right = [int((each.expected == each.observed).sum()) for each in (straight, turned)]
    assert right[1] >= right[0] - 3
    unmarked = torch.from_numpy(embedding.key.tensors["unmarked"])
    again, _ = align_answers(unmarked @ turn, unmarked)
    torch.testing.assert_close(again, unmarked, atol=1e-3, rtol=1e-3)


def test_the_key_holds_what_its_carriers_hang_on(marked: Any) -> None:
    _, embedding = marked[FEATURES.name]
    assert embedding.key.facts["triggers"]
    assert set(embedding.key.tensors) == {"secret", "triggers", "content", "unmarked"}
