"""NeuralMark: the filter and the hash by hand, bits that are coins on innocent models, and what choosing the key would buy."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import binom

import amb
from amb.evaluation.claims import exact_test
from amb.testing import toy_context
from amb_neuralmark import marking
from amb_neuralmark.marking import (
    find_layers,
    hash_matrix,
    make_key,
    open_carrier,
    project,
    read_carrier,
    select_places,
)
from amb_neuralmark.method import NeuralMark
from tests.plugins.signs import OTHER, OWNER, SignMark, count_right, read

METHOD = NeuralMark(n_bits=32, n_parts=64, rounds=3, steps=120, batch=4, lr=0.05)


@pytest.fixture(scope="module")
def embedding(tmp_path_factory: pytest.TempPathFactory) -> amb.Embedding:
    return METHOD.embed(OWNER, toy_context(tmp_path_factory.mktemp("marked")))


class TestNeuralMark(SignMark):
    METHOD = METHOD
    MARKING = marking
    COSINE = 0.98
    UNLEARN = (3e-3, 100)


# The null


def test_a_layer_that_says_nothing_is_never_a_claim(embedding: amb.Embedding, tmp_path: Path) -> None:
    carrier = open_carrier(METHOD, embedding.key)
    for value in (0.0, float("nan")):
        model = OTHER.copy()
        dict(model.backbone.named_parameters())[carrier.layer].data.fill_(value)
        assert exact_test(read(METHOD, model, embedding.key, tmp_path)).p_value == 1
    for silent in ({"layer": "gone"}, {"layer": "patches.weight"}, {"places": torch.zeros(0, dtype=torch.int64)}):
        assert exact_test(read_carrier(OTHER, carrier._replace(**silent))).p_value == 1


# The filter, the hash and the projection


def test_the_message_is_the_hash_of_the_matrix(embedding: amb.Embedding) -> None:
    carrier = open_carrier(METHOD, embedding.key)
    digest = hashlib.shake_256(b"".join(np.float32(x).tobytes() for x in carrier.matrix.numpy().ravel())).digest(4)
    assert [int(bit) for bit in carrier.message] == [byte >> (7 - i) & 1 for byte in digest for i in range(8)]
    assert torch.equal(carrier.message, torch.from_numpy(hash_matrix(carrier.matrix.numpy())))


def test_each_round_keeps_the_weights_where_the_repeated_message_is_one() -> None:
    message = np.array([True, False, True, True, False])
    row = list(range(23))
    for rounds in range(4):
        assert select_places(message, 23, rounds).tolist() == row
        row = [place for i, place in enumerate(row) if message[i % 5]]


def test_what_is_kept_is_averaged_in_equal_parts_and_projected(embedding: amb.Embedding) -> None:
    carrier = open_carrier(METHOD, embedding.key)
    row = OWNER.backbone.state_dict()[carrier.layer].double().flatten().numpy()[carrier.places.numpy()]
    n, parts = len(row), METHOD.n_parts
    means = [row[i * n // parts : -(-(i + 1) * n // parts)].mean() for i in range(parts)]
    found = np.array(means) @ carrier.matrix.double().numpy()
    np.testing.assert_allclose(project(OWNER, carrier).detach().numpy(), found, rtol=1e-3, atol=1e-5)


def test_the_secret_chooses_among_layers_that_keep_enough(tmp_path: Path) -> None:
    layers = find_layers(METHOD, OWNER)
    assert layers == {each.name: n for each in OWNER.matrices() if (n := each.weight.numel()) >= 2 * 64 * 8}
    drawn = {
        open_carrier(METHOD, make_key(METHOD, OWNER, toy_context(tmp_path, str(seed)))).layer for seed in range(150)
    }
    assert drawn == set(layers)


# The mark


def test_a_second_mark_leaves_the_first(embedding: amb.Embedding, tmp_path: Path) -> None:
    again = METHOD.embed(embedding.model, toy_context(tmp_path, "thief"))
    assert exact_test(read(METHOD, again.model, again.key, tmp_path)).claim
    assert count_right(read(METHOD, again.model, embedding.key, tmp_path)) >= 30


def test_another_order_of_neurons_removes_it(tmp_path: Path) -> None:
    method = METHOD.model_copy(update={"layer": "layers.1.linear1.weight"})
    embedding = method.embed(OWNER, toy_context(tmp_path))
    permuted = amb.get_attack("permute-neurons").apply(embedding.model, toy_context(tmp_path, roles=("attacker",)))
    suspects = [
        method.extract(amb.SuspectView(each, "weights"), embedding.key, toy_context(tmp_path))
        for each in (embedding.model, permuted)
    ]
    assert [exact_test(each, 1e-3).claim for each in suspects] == [True, False]


# Keys and forgeries


def test_a_key_with_a_chosen_matrix_is_refused(embedding: amb.Embedding, tmp_path: Path) -> None:
    key = replace(embedding.key, tensors={**embedding.key.tensors, "matrix": np.ones((64, 32), dtype=np.float32)})
    with pytest.raises(amb.UsageError, match="brings its own 'matrix'"):
        read(METHOD, OTHER, key, tmp_path)


def test_a_matrix_that_was_fitted_to_the_filter_is_no_coin() -> None:
    """The published form, in which K is the claimant's: w depends on b, so a K can be found that tells b from w, before it
    is hashed. The hash then only decides which of the b's it reads better than chance is his."""
    chance = np.random.default_rng(0)
    row = OTHER.backbone.state_dict()["layers.0.linear1.weight"].flatten()
    messages = chance.random((4000, 32)) < 0.5
    filtered = np.stack([average(row, message) for message in messages])
    seen = slice(0, 3000)
    centre, signs = filtered[seen].mean(axis=0), 2.0 * messages[seen] - 1
    spread = np.cov(filtered[seen].T) + 0.05 * filtered.var(axis=0).mean() * np.eye(64)
    matrix = np.linalg.solve(spread, (filtered[seen] - centre).T @ signs)
    along = np.linalg.solve(spread, centre)
    matrix -= np.outer(along, centre @ matrix / (centre @ along))  # the verifier subtracts no mean
    right = ((filtered[3000:] @ matrix > 0) == messages[3000:]).sum(axis=1)
    assert right.mean() > 16 + 6 * (8 / 1000) ** 0.5, (
        "six standard errors above a coin, on messages that were never seen"
    )


def average(row: torch.Tensor, message: np.ndarray) -> np.ndarray:
    kept = row[torch.from_numpy(select_places(message, len(row), METHOD.rounds))]
    return torch.nn.functional.adaptive_avg_pool1d(kept[None], METHOD.n_parts)[0].numpy()


# Bad input


@pytest.mark.parametrize(
    ("params", "says"),
    [
        (
            {"n_parts": 512},
            "512 parts after 4 rounds take a layer of 16,384 weights, and the largest of toy/1 has 3,072",
        ),
        ({"layer": "layers.1.linear1.weight"}, r"n_parts is 512, but this key keeps \d+ weights of its layer"),
        ({"layer": "layers.9.linear1.weight"}, "layer is 'layers.9.linear1.weight', which toy/1 has not got"),
    ],
)
def test_what_cannot_be_marked_is_refused_in_one_line(params: dict[str, object], says: str, tmp_path: Path) -> None:
    with pytest.raises(amb.BadParamsError, match=says) as caught:
        NeuralMark.create(params).embed(OWNER, toy_context(tmp_path))
    assert "\n" not in str(caught.value)


def test_the_papers_boundary() -> None:
    method = NeuralMark()
    assert (method.n_bits - method.default_tau) / method.n_bits == pytest.approx(0.8828, abs=1e-4)
    assert binom.sf(225, 256, 0.5) < 2.0**-120
    assert binom.sf(166, 256, 0.5) <= 1e-6 < binom.sf(165, 256, 0.5)
