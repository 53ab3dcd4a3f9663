"""Uchida's mark: bits that are coins on innocent models, what is read of a layer, what removes it, what is refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import binom

import amb
from amb.evaluation.claims import exact_test
from amb.testing import ExactNull, toy_context
from amb_uchida import marking
from amb_uchida.marking import find_layers, make_key, open_carrier, project, read_carrier
from amb_uchida.method import Uchida
from tests.plugins.signs import OTHER, OWNER, SignMark, count_right, read

METHOD = Uchida(n_bits=12, lam=1, lr=5e-3, steps=80, batch=8)
SECOND = "layers.2.linear2.weight"
"""A matrix that writes into the residual stream."""


@pytest.fixture(scope="module")
def embedding(tmp_path_factory: pytest.TempPathFactory) -> amb.Embedding:
    return METHOD.embed(OWNER, toy_context(tmp_path_factory.mktemp("marked")))


class TestUchida(SignMark):
    METHOD = METHOD
    MARKING = marking
    COSINE = 0.9
    UNLEARN = (1e-3, 60)


# The null


class TestNullOfOnes(ExactNull):
    """The message of the authors' code: the coins are the projection's."""

    @pytest.fixture
    def method(self) -> amb.Method:
        return Uchida(n_bits=12, bits="ones", steps=1, batch=2)


def damage(change: Callable[[torch.Tensor], None], layer: str) -> amb.VisionModel:
    model = OTHER.copy()
    change(dict(model.backbone.named_parameters())[layer].data)
    return model


def test_a_layer_that_says_nothing_is_never_a_claim(embedding: amb.Embedding, tmp_path: Path) -> None:
    carrier = open_carrier(METHOD, embedding.key)
    for change in (torch.Tensor.zero_, lambda weight: weight.fill_(float("nan"))):
        assert exact_test(read(METHOD, damage(change, carrier.layer), embedding.key, tmp_path)).p_value == 1
    assert exact_test(read_carrier(OTHER, carrier._replace(layer="gone"))).p_value == 1
    assert exact_test(read_carrier(OTHER, carrier._replace(layer="layers.0.linear2.weight"))).p_value == 1, "64 inputs"


# What is read


def test_the_mean_is_over_outputs_of_linear_layers_and_convolutions(tmp_path: Path) -> None:
    conv = Uchida(n_bits=40, layer="patches.weight")
    for method in (METHOD, conv):
        carrier = open_carrier(method, make_key(method, OWNER, toy_context(tmp_path)))
        weight = OWNER.backbone.state_dict()[carrier.layer].double().numpy()
        mean = sum(weight[i].reshape(-1) for i in range(len(weight))) / len(weight)
        found = [float(np.dot(row, mean)) for row in carrier.projection.double().numpy()]
        np.testing.assert_allclose(project(OWNER, carrier).detach().numpy(), found, rtol=1e-3, atol=1e-5)
    assert find_layers(conv, OWNER) == {"patches.weight": 3 * 4 * 4}


def test_the_secret_chooses_among_the_first_matrices_of_the_blocks(tmp_path: Path) -> None:
    assert find_layers(METHOD, OWNER) == {f"layers.{block}.linear1.weight": 32 for block in range(4)}
    drawn = {
        open_carrier(METHOD, make_key(METHOD, OWNER, toy_context(tmp_path, str(seed)))).layer for seed in range(40)
    }
    assert drawn == set(find_layers(METHOD, OWNER))


def test_a_convolutional_network_is_marked_and_read(tmp_path: Path) -> None:
    options = {"channels": [8, 8, 16, 16], "output_stride": 8}
    conv = amb.build_model({"loader": "timm", "name": "resnet10t", "options": options, "image_size": 16}).eval()
    embedding = METHOD.embed(conv, toy_context(tmp_path))
    assert exact_test(read(METHOD, embedding.model, embedding.key, tmp_path), 0.01).claim
    assert METHOD.skip(OWNER.facts(), embedding.key) is not None


# What removes it, and what does not


def test_the_order_of_outputs_says_nothing(embedding: amb.Embedding, tmp_path: Path) -> None:
    ctx = toy_context(tmp_path, roles=("attacker",))
    permuted = amb.get_attack("permute-neurons").apply(embedding.model, ctx)
    assert count_right(read(METHOD, permuted, embedding.key, tmp_path)) == 12


def test_a_mark_in_what_writes_into_the_stream_is_removed_for_nothing(tmp_path: Path) -> None:
    """What all outputs share is taken off by the next LayerNorm, so nothing that the network computes holds it there."""
    method = METHOD.model_copy(update={"layer": SECOND})
    embedding = method.embed(OWNER, toy_context(tmp_path))
    assert count_right(read(method, embedding.model, embedding.key, tmp_path)) == 12
    washed = embedding.model.copy()
    weight = dict(washed.backbone.named_parameters())[SECOND].data
    weight.sub_(weight.mean(dim=0))
    images = toy_context(tmp_path).split("test").batch(range(16)).images
    torch.testing.assert_close(washed.features(images), embedding.model.features(images), rtol=1e-4, atol=1e-4)
    assert not exact_test(read(method, washed, embedding.key, tmp_path), 0.01).claim


def test_drift_is_nothing_where_nothing_moved(embedding: amb.Embedding, tmp_path: Path) -> None:
    images = toy_context(tmp_path).split("owner").batch(range(8)).images
    assert amb.measure_drift(OWNER, OWNER.copy(), images).item() < 1e-10
    assert 1e-6 < amb.measure_drift(OWNER, embedding.model, images).item() < 0.5


# Keys and forgeries


def test_whoever_may_choose_the_message_claims_any_model(embedding: amb.Embedding, tmp_path: Path) -> None:
    """The published form, in which the message is stored: 2^-12 on an innocent model. Here such a key is refused."""
    carrier = open_carrier(METHOD, embedding.key)
    chosen = carrier._replace(message=project(OTHER, carrier) > 0)
    assert exact_test(read_carrier(OTHER, chosen)).p_value == pytest.approx(2.0**-12)
    turned = carrier._replace(
        message=torch.ones(12, dtype=torch.bool),
        projection=carrier.projection * project(OTHER, carrier).detach().sign()[:, None],
    )
    assert exact_test(read_carrier(OTHER, turned)).p_value == pytest.approx(2.0**-12)
    for name, part in (("message", chosen.message), ("projection", turned.projection)):
        key = replace(embedding.key, tensors={**embedding.key.tensors, name: part.numpy()})
        with pytest.raises(amb.UsageError, match=f"brings its own '{name}'"):
            read(METHOD, OTHER, key, tmp_path)


# Bad input


@pytest.mark.parametrize(
    ("params", "says"),
    [
        ({"n_bits": 64}, "n_bits is 64, but the mean filter of the widest layer of toy/1 has 32 values"),
        ({"layer": "patches.weight", "n_bits": 49}, "the mean filter of patches.weight has 48 values"),
        ({"layer": "layers.9.linear1.weight"}, "layer is 'layers.9.linear1.weight', which toy/1 has not got"),
    ],
)
def test_what_cannot_be_marked_is_refused_in_one_line(params: dict[str, object], says: str, tmp_path: Path) -> None:
    with pytest.raises(amb.BadParamsError, match=says) as caught:
        Uchida.create({"n_bits": 16, **params}).embed(OWNER, toy_context(tmp_path))
    assert "\n" not in str(caught.value)


def test_tau_is_what_coins_reach_once_in_a_million() -> None:
    for method in (Uchida(), Uchida(n_bits=30)):
        tau, n = method.default_tau, method.n_bits
        assert sum(binom.pmf(k, n, 0.5) for k in range(tau + 1)) <= 1e-6
        assert sum(binom.pmf(k, n, 0.5) for k in range(tau + 2)) > 1e-6
    assert Uchida().default_tau == 13
    assert METHOD.default_tau == 0, "so few bits cannot be that rare"
