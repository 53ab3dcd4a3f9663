"""NeuralMark: the filter and the hash by hand, bits that are coins on innocent models, and what choosing the key would buy."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import binom, kstest

import amb
from amb.evaluation.claims import exact_test
from amb.testing import ExactNull, toy_context, toy_model
from amb_attacks.forge import Forge
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

METHOD = NeuralMark(n_bits=32, n_parts=64, rounds=3, steps=120, batch=4, lr=0.05)
OWNER, OTHER = toy_model(seed=1, n_classes=3), toy_model(seed=2, n_classes=3)


def read(model: amb.VisionModel, key: amb.Key, folder: Path) -> amb.Evidence:
    return METHOD.extract(amb.SuspectView(model, "weights"), key, toy_context(folder, roles=()))


def count_right(evidence: amb.Evidence) -> int:
    return int((evidence.expected == evidence.observed).sum())


@pytest.fixture(scope="module")
def embedding(tmp_path_factory: pytest.TempPathFactory) -> amb.Embedding:
    return METHOD.embed(OWNER, toy_context(tmp_path_factory.mktemp("marked")))


# The null


class TestNull(ExactNull):
    @pytest.fixture
    def method(self) -> amb.Method:
        return METHOD


@pytest.mark.parametrize("model", [OWNER, OTHER], ids=["unmarked", "other"])
def test_right_bits_of_innocent_models_are_binomial(
    model: amb.VisionModel, embedding: amb.Embedding, tmp_path: Path
) -> None:
    drawn, chance = torch.Generator().manual_seed(5), np.random.default_rng(5)
    keys = [METHOD.redraw(embedding.key, drawn) for _ in range(1000)]
    right = np.array([count_right(read(model, key, tmp_path)) for key in keys])
    spread = binom.cdf(right - 1, 32, 0.5) + chance.random(1000) * binom.pmf(right, 32, 0.5)  # uniform if binomial
    assert kstest(spread, "uniform").pvalue > 0.001


def test_a_layer_that_says_nothing_is_never_a_claim(embedding: amb.Embedding, tmp_path: Path) -> None:
    carrier = open_carrier(METHOD, embedding.key)
    for value in (0.0, float("nan")):
        model = OTHER.copy()
        dict(model.backbone.named_parameters())[carrier.layer].data.fill_(value)
        assert exact_test(read(model, embedding.key, tmp_path)).p_value == 1
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


def test_the_mark_is_read_and_the_function_stays(embedding: amb.Embedding, tmp_path: Path) -> None:
    evidence = read(embedding.model, embedding.key, tmp_path)
    assert count_right(evidence) == 32
    assert exact_test(evidence).p_value == pytest.approx(2.0**-32)
    images = toy_context(tmp_path).split("test").batch(range(32)).images
    with torch.no_grad():
        cosine = torch.nn.functional.cosine_similarity(OWNER.features(images), embedding.model.features(images))
    assert 0.98 < cosine.mean() < 1


def test_a_second_mark_leaves_the_first(embedding: amb.Embedding, tmp_path: Path) -> None:
    again = METHOD.embed(embedding.model, toy_context(tmp_path, "thief"))
    assert exact_test(read(again.model, again.key, tmp_path)).claim
    assert count_right(read(again.model, embedding.key, tmp_path)) >= 30


def test_another_order_of_neurons_removes_it(tmp_path: Path) -> None:
    method = METHOD.model_copy(update={"layer": "layers.1.linear1.weight"})
    embedding = method.embed(OWNER, toy_context(tmp_path))
    permuted = amb.get_attack("permute-neurons").apply(embedding.model, toy_context(tmp_path, roles=("attacker",)))
    suspects = [
        method.extract(amb.SuspectView(each, "weights"), embedding.key, toy_context(tmp_path))
        for each in (embedding.model, permuted)
    ]
    assert [exact_test(each, 1e-3).claim for each in suspects] == [True, False]


def test_training_against_the_key_removes_it(embedding: amb.Embedding, tmp_path: Path) -> None:
    model, drawn = embedding.model.copy(), torch.Generator().manual_seed(0)
    carrier = open_carrier(METHOD, embedding.key)
    signs, found = 2.0 * carrier.message - 1, project(model, carrier).double()
    by_hand = torch.log(torch.sigmoid(signs * found)).clamp(min=float(np.log(0.5))).mean()
    agreement = METHOD.agreement(model, embedding.key, 8, drawn)
    assert agreement.item() == pytest.approx(by_hand.item(), rel=1e-5)
    optimizer = torch.optim.Adam(model.backbone.parameters(), lr=3e-3)
    for _ in range(100):
        optimizer.zero_grad()
        METHOD.agreement(model, embedding.key, 8, drawn).backward()
        optimizer.step()
    assert METHOD.agreement(model, embedding.key, 8, drawn) < agreement
    assert not exact_test(read(model, embedding.key, tmp_path)).claim


# Keys and forgeries


def test_a_key_with_a_chosen_matrix_is_refused(embedding: amb.Embedding, tmp_path: Path) -> None:
    key = replace(embedding.key, tensors={**embedding.key.tensors, "matrix": np.ones((64, 32), dtype=np.float32)})
    with pytest.raises(amb.UsageError, match="brings its own 'matrix'"):
        read(OTHER, key, tmp_path)


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


def test_grinding_finds_what_luck_gives(embedding: amb.Embedding, tmp_path: Path) -> None:
    ctx = toy_context(tmp_path, roles=("attacker",), method=METHOD, key=embedding.key)
    forged = Forge(what="secret", budget=400).forge(OTHER, ctx)
    found = exact_test(read(OTHER, forged, tmp_path))
    assert ctx.notes["best_p"] == pytest.approx(found.p_value)
    assert 1e-3 / 400 < found.p_value < 10 / 400


def test_what_a_key_says_of_the_model_is_audited(embedding: amb.Embedding) -> None:
    layers = embedding.key.facts["layers"]
    fewer = replace(embedding.key, facts={**embedding.key.facts, "layers": dict(list(layers.items())[:1])})
    one, other = (open_carrier(METHOD, key) for key in (embedding.key, fewer))
    assert not torch.equal(one.matrix, other.matrix)
    assert METHOD.audit_key(fewer, OWNER).wrong
    assert METHOD.audit_key(embedding.key, OTHER).wrong
    sound = METHOD.audit_key(embedding.key, OWNER)
    assert not sound.wrong and not sound.trusted and len(sound.recomputed) == 2
    assert METHOD.audit_key(embedding.key).trusted


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


def test_a_suspect_of_another_form_is_skipped(embedding: amb.Embedding) -> None:
    assert METHOD.skip(OTHER.facts(), embedding.key) is None
    assert "of another form" in (METHOD.skip(toy_model(depth=3).facts(), embedding.key) or "")


def test_the_papers_boundary() -> None:
    method = NeuralMark()
    assert (method.n_bits - method.default_tau) / method.n_bits == pytest.approx(0.8828, abs=1e-4)
    assert binom.sf(225, 256, 0.5) < 2.0**-120
    assert binom.sf(166, 256, 0.5) <= 1e-6 < binom.sf(165, 256, 0.5)
