"""Forging beyond the contract: what of the key is made up, what stays, and how well the search does against brute force."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch

from amb.api.records import Embedding
from amb.api.vision import SuspectView
from amb.errors import BadParamsError
from amb.evaluation.rates import errors
from amb.testing import toy_context, toy_model
from amb.testing.toy import ToyMethod
from amb_activemark.method import ActiveMark
from amb_activemark.reading import coders_of, images_of, read_messages
from amb_advtra.method import AdvTra
from amb_attacks.claimant import EveryNth, claimant
from amb_attacks.forge import Forge
from amb_ipguard.method import IPGuard

MARK = ActiveMark(n_bits=4, n_triggers=8, steps=60, batch=8, n_images=16, loss="mse", lr=3e-3, coder_lr=1e-2)
POINTS, PATHS = IPGuard(n_points=12, k=0.1), AdvTra(n_trajectories=6, n_classes=3)
OTHER = toy_model(seed=2, n_classes=3)
"""The innocent model."""


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Embedding:
    return MARK.embed(toy_model(n_classes=3), toy_context(tmp_path_factory.mktemp("honest")))


def forge(folder: Path, method, what: str, budget: int, key=None):
    ctx = toy_context(folder, roles=("attacker",), method=method, key=key)
    before = OTHER.digest()
    forged = Forge(what=what, budget=budget).forge(OTHER, ctx)
    assert OTHER.digest() == before
    assert ctx.notes == {"forged": what, "budget": budget}
    return forged


def wrong(method, key, folder: Path) -> np.ndarray:
    return errors(method.extract(SuspectView(OTHER, method.access), key, toy_context(folder, roles=())))


def test_the_claimants_images_are_two_halves_of_the_attackers(tmp_path: Path) -> None:
    ctx = claimant(toy_context(tmp_path, roles=("attacker",)), "test")
    whole = [image.numpy().tobytes() for image in toy_context(tmp_path).split("attacker").batch(range(128)).images]
    halves = [
        [image.numpy().tobytes() for image in ctx.split(role).batch(range(len(ctx.split(role)))).images]
        for role in ("owner", "trigger")
    ]
    assert not set(halves[0]) & set(halves[1])
    assert set(halves[0]) | set(halves[1]) == set(whole)
    assert len(EveryNth(toy_context(tmp_path).split("attacker"), 1, 3)) == len(range(1, 128, 3))


@pytest.mark.parametrize(("method", "inputs"), [(POINTS, "points"), (PATHS, "samples")])
def test_relabelled_fingerprints_match_whatever_they_are_asked_of(method, inputs: str, tmp_path: Path) -> None:
    key = method.embed(toy_model(n_classes=3), toy_context(tmp_path)).key
    forged = forge(tmp_path, method, "messages", 1, key)
    np.testing.assert_array_equal(forged.tensors[inputs], key.tensors[inputs])
    with torch.no_grad():
        flat = torch.from_numpy(key.tensors[inputs]).reshape(-1, 3, 16, 16)
        labels = torch.cat([OTHER.logits(image[None]) for image in flat]).argmax(dim=1)
    np.testing.assert_array_equal(forged.tensors["labels"].reshape(-1), labels.numpy())
    assert not np.array_equal(forged.tensors["labels"], key.tensors["labels"]), "else the test shows nothing"
    assert forged.tensors["labels"].dtype == key.tensors["labels"].dtype
    assert wrong(method, forged, tmp_path).sum() == 0


def test_forged_points_lie_in_their_class_on_the_innocent_model(tmp_path: Path) -> None:
    forged = forge(tmp_path, POINTS, "triggers", 300)
    with torch.no_grad():
        logits = OTHER.logits(torch.from_numpy(forged.tensors["points"])).sort(dim=1)
    np.testing.assert_array_equal(forged.tensors["labels"], logits.indices[:, -1].numpy())
    assert (logits.values[:, -1] - logits.values[:, -2]).min() >= POINTS.k - 1e-4
    assert forged.method == POINTS.canonical()
    assert wrong(POINTS, forged, tmp_path).sum() == 0


def test_forged_trajectories_read_on_the_innocent_model(tmp_path: Path) -> None:
    forged = forge(tmp_path, PATHS, "triggers", 100)
    assert forged.tensors["samples"].shape[1] == PATHS.n_symbols
    assert wrong(PATHS, forged, tmp_path).sum() == 0
    assert forged.method == PATHS.canonical()


def test_messages_reach_what_brute_force_finds(honest: Embedding, tmp_path: Path) -> None:
    """All 16 messages of 4 bits on each trigger: the search reaches the fewest wrong bits that there are."""
    key, every = honest.key, torch.tensor(list(product([0, 1], repeat=4)), dtype=torch.uint8)
    images, coders = images_of(key), coders_of(key)
    fewest = []
    for image in images:
        answered = read_messages(OTHER, image.expand(16, -1, -1, -1), every, *coders, key.facts) > 0.5
        fewest.append(int((answered != every.bool()).sum(dim=1).min()))
    forged = forge(tmp_path, MARK, "messages", 200, key)
    np.testing.assert_array_equal(wrong(MARK, forged, tmp_path), fewest)
    assert sum(fewest) < wrong(MARK, key, tmp_path).sum(), "else the test shows nothing"
    assert {name for name in key.tensors if not np.array_equal(key.tensors[name], forged.tensors[name])} == {"messages"}
    assert wrong(MARK, forge(tmp_path, MARK, "messages", 1, key), tmp_path).sum() > sum(fewest), "one try is a guess"


@pytest.mark.parametrize("budget", [1, 5, 40])
def test_triggers_move_no_further_than_their_steps_and_read_better(
    honest: Embedding, tmp_path: Path, budget: int
) -> None:
    forged = forge(tmp_path, MARK, "triggers", budget, honest.key)
    before, after = (key.tensors["triggers"].astype(int) for key in (honest.key, forged))
    assert np.abs(after - before).max() <= 2 * budget
    assert forged.tensors["triggers"].dtype == np.uint8
    assert (wrong(MARK, forged, tmp_path) <= wrong(MARK, honest.key, tmp_path)).all()
    if budget == 40:
        assert wrong(MARK, forged, tmp_path).sum() < 0.5 * wrong(MARK, honest.key, tmp_path).sum()


def test_a_decoder_of_ones_own_reads_from_the_attackers_images(honest: Embedding, tmp_path: Path) -> None:
    forged = forge(tmp_path, MARK, "decoder", 60)
    attackers = toy_context(tmp_path).split("attacker").batch(range(1, 128, 2)).images
    known = {(image * 255).round().to(torch.uint8).numpy().tobytes() for image in attackers}
    assert {image.tobytes() for image in forged.tensors["triggers"]} <= known
    assert {name: array.shape for name, array in forged.tensors.items()} == {
        name: array.shape for name, array in honest.key.tensors.items()
    }
    assert forged.method == MARK.canonical()
    assert forged.facts == honest.key.facts
    assert wrong(MARK, forged, tmp_path).mean() < 0.5 < wrong(MARK, honest.key, tmp_path).mean()


@pytest.mark.parametrize(
    ("method", "what"), [(MARK, "messages"), (MARK, "triggers"), (POINTS, "messages"), (PATHS, "messages")]
)
def test_what_starts_from_the_honest_key_asks_for_it(method, what: str, tmp_path: Path) -> None:
    with pytest.raises(BadParamsError, match="starts from the owner's key"):
        forge(tmp_path, method, what, 1)


@pytest.mark.parametrize(
    ("method", "offered"),
    [
        (MARK, "messages, triggers, decoder"),
        (POINTS, "messages, triggers"),
        (PATHS, "messages, triggers"),
        (ToyMethod(), "messages"),
    ],
    ids=lambda each: getattr(each, "name", ""),
)
def test_a_forgery_that_a_method_does_not_know_is_no_other_one(method, offered: str, tmp_path: Path) -> None:
    ctx = toy_context(tmp_path)
    with pytest.raises(BadParamsError, match=f"does not forge 'trigger'.*It forges {offered}\\.$"):
        method.forge(OTHER, "trigger", 1, ctx)


def test_what_a_method_does_not_offer_is_skipped_and_what_cannot_be_read_refused(
    honest: Embedding, tmp_path: Path
) -> None:
    assert "it offers: messages, triggers" in (Forge(what="decoder").skip_method(POINTS) or "")
    assert all(Forge(what=what).skip_method(MARK) is None for what in MARK.forgeries)
    wide = toy_model(dim=64, n_classes=3)
    ctx = toy_context(tmp_path, roles=("attacker",), method=MARK, key=honest.key)
    with pytest.raises(BadParamsError, match="the key reads models with dim = 32"):
        Forge(what="messages").forge(wide, ctx)
    headless = replace(ctx, method=POINTS, key=None)
    with pytest.raises(BadParamsError, match="no classification head"):
        Forge(what="triggers").forge(toy_model(), headless)
