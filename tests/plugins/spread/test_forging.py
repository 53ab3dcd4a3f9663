"""Forging spread-spectrum keys: grinding finds what luck gives, and a key with a chosen part is not read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import binom

import amb
from amb.evaluation.claims import exact_test
from amb.testing import toy_context, toy_model
from amb_attacks.forge import Forge
from amb_spread.features import SpreadFeatures
from amb_spread.weights import SpreadWeights

FEATURES = SpreadFeatures(n_messages=1, n_bits=32, steps=1, batch=4, n_images=64, n_triggers=64)
WEIGHTS = SpreadWeights(n_messages=2, n_bits=16)
METHODS = pytest.mark.parametrize("method", [FEATURES, WEIGHTS], ids=lambda method: method.name)
OWNER, OTHER = toy_model(seed=1, n_classes=3), toy_model(seed=2, n_classes=3)
BUDGET = 400


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, amb.Key]:
    folder = tmp_path_factory.mktemp("keys")
    return {each.name: each.embed(OWNER, toy_context(folder)).key for each in (FEATURES, WEIGHTS)}


def read(method: amb.Method, key: amb.Key, folder: Path, base: amb.VisionModel = OWNER) -> amb.Evidence:
    return method.extract(amb.SuspectView(OTHER, method.access), key, toy_context(folder, roles=(), base=lambda: base))


@METHODS
def test_grinding_finds_the_best_of_its_tries_and_no_more(method: Any, keys: Any, tmp_path: Path) -> None:
    ctx = toy_context(tmp_path, roles=("attacker",), method=method, key=keys[method.name], base=lambda: OWNER)
    forged = Forge(what="secret", budget=BUDGET).forge(OTHER, ctx)
    found = exact_test(read(method, forged, tmp_path))
    assert ctx.notes["best_p"] == pytest.approx(found.p_value), "what was counted together is what is read alone"
    assert ctx.notes["one_in_budget"] == 1 / BUDGET
    assert 1e-3 / BUDGET < found.p_value < 10 / BUDGET
    assert not found.claim
    changed = {
        name for name in forged.tensors if not np.array_equal(forged.tensors[name], keys[method.name].tensors[name])
    }
    assert changed == {"secret"}


@METHODS
def test_one_try_is_one_coin_toss_a_bit(method: Any, keys: Any, tmp_path: Path) -> None:
    ctx = toy_context(tmp_path, method=method, key=keys[method.name], base=lambda: OWNER)
    Forge(what="secret", budget=1).forge(OTHER, ctx)
    assert ctx.notes["best_p"] > binom.sf(27, 32, 0.5)


@METHODS
def test_forging_asks_for_the_key_and_for_something_that_is_offered(method: Any, tmp_path: Path) -> None:
    with pytest.raises(amb.BadParamsError, match="starts from the owner's key"):
        method.forge(OTHER, "secret", 1, toy_context(tmp_path, base=lambda: OWNER))
    with pytest.raises(amb.BadParamsError, match="It forges secret"):
        method.forge(OTHER, "messages", 1, toy_context(tmp_path))
    assert "it offers: secret" in (Forge(what="messages").skip_method(method) or "")


@METHODS
@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"directions": np.ones((32, 32), dtype=np.float32)}, "brings its own 'directions'"),
        ({"messages": np.ones(32, dtype=np.int8)}, "brings its own 'messages'"),
        ({"secret": np.zeros(31, dtype=np.uint8)}, "no secret of 32 bytes"),
        ({"secret": np.zeros(32, dtype=np.float32)}, "no secret of 32 bytes"),
    ],
)
def test_a_key_with_a_chosen_part_is_refused(
    method: Any, change: dict[str, Any], says: str, keys: Any, tmp_path: Path
) -> None:
    key = keys[method.name]
    with pytest.raises(amb.UsageError, match=f"is refused: .*{says}") as caught:
        read(method, replace(key, tensors={**key.tensors, **change}), tmp_path)
    assert "\n" not in str(caught.value)


@METHODS
def test_a_key_is_read_with_the_parameters_that_it_was_made_with(method: Any, keys: Any, tmp_path: Path) -> None:
    other = method.model_copy(update={"n_bits": method.n_bits * 2})
    with pytest.raises(amb.UsageError, match="made by .* and cannot be read as"):
        read(other, keys[method.name], tmp_path)


@pytest.mark.parametrize("part", ["triggers", "content", "unmarked"])
def test_parts_chosen_after_the_carriers_are_refused(part: str, keys: Any, tmp_path: Path) -> None:
    key = keys[FEATURES.name]
    chosen = key.tensors[part].copy()
    chosen.flat[0] += 1
    with pytest.raises(amb.UsageError, match=f"carriers were drawn for other {part}"):
        read(FEATURES, replace(key, tensors={**key.tensors, part: chosen}), tmp_path)
    without = {name: array for name, array in key.tensors.items() if name != part}
    with pytest.raises(amb.UsageError, match=f"has no '{part}'"):
        read(FEATURES, replace(key, tensors=without), tmp_path)


def test_another_reference_than_the_key_names_is_refused(keys: Any, tmp_path: Path) -> None:
    with pytest.raises(amb.UsageError, match="drawn for other unmarked weights"):
        read(WEIGHTS, keys[WEIGHTS.name], tmp_path, base=toy_model(seed=5, n_classes=3))
