"""Overwriting and unlearning beyond the contract: numbers by hand, which keys still read, what it costs the features."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from amb.api.records import Embedding
from amb.api.vision import SuspectView
from amb.errors import BadParamsError
from amb.plugin.manager import Manager
from amb.testing import toy_context, toy_model
from amb_activemark.reading import agreement, coders_of, images_of, read_messages
from amb_advtra.method import AdvTra
from amb_attacks.claimant import claimant
from amb_attacks.overwrite import Overwrite
from amb_attacks.unlearn import Unlearn
from amb_attacks.unlearn_torch import drift
from amb_ipguard.method import IPGuard
from tests.conftest import QUICK

MARK = Manager().registry.method(QUICK).model_copy(update={"steps": 90})
EVERY = 10**6


@pytest.fixture(scope="module")
def stolen(tmp_path_factory: pytest.TempPathFactory) -> Embedding:
    return MARK.embed(toy_model(n_classes=3), toy_context(tmp_path_factory.mktemp("stolen")))


def apply(attack, model, folder: Path, **knows):
    ctx = toy_context(folder, roles=("attacker",), **knows)
    return attack.apply(model, ctx), ctx.notes


def share_read(method, model, key, folder: Path) -> float:
    """The detection rate, counted by hand."""
    evidence = method.extract(SuspectView(model, method.access), key, toy_context(folder, roles=()))
    return float(np.mean((evidence.expected != evidence.observed).sum(axis=1) <= method.default_tau))


def images(folder: Path) -> torch.Tensor:
    return toy_context(folder).split("test").batch(range(64)).images


def drawn() -> torch.Generator:
    return torch.Generator().manual_seed(0)


# Agreement


def test_activemarks_agreement_is_the_likelihood_of_the_bits(stolen: Embedding) -> None:
    key, model = stolen.key, toy_model(seed=2)
    messages = key.tensors["messages"]
    answers = read_messages(model, images_of(key), torch.from_numpy(messages), *coders_of(key), key.facts).numpy()
    likelihood = np.log(np.where(messages == 1, answers, 1 - answers))
    by_hand = np.maximum(likelihood, np.log(0.5)).mean()
    assert (likelihood < np.log(0.5)).any(), "else the bound is not tested"
    assert MARK.agreement(model, key, EVERY, drawn()).item() == pytest.approx(by_hand, rel=1e-4)
    assert MARK.agreement(stolen.model, key, EVERY, drawn()).item() > -0.4


def test_no_bit_is_worse_than_a_guess(stolen: Embedding) -> None:
    """The decoder says the opposite of the message with certainty, whatever it reads; then the message itself."""
    model, tensors = toy_model(seed=2), dict(stolen.key.tensors)
    message = tensors["messages"][:1]
    opposite = np.where(message[0] == 1, -50, 50).astype(np.float32)
    deaf = np.zeros_like(tensors["decoder.2.weight"])
    tensors |= {"triggers": tensors["triggers"][:1], "messages": message, "decoder.2.weight": deaf}
    sure = replace(stolen.key, tensors={**tensors, "decoder.2.bias": opposite})
    assert agreement(model, sure, 1, drawn()).item() == pytest.approx(math.log(0.5))
    right = replace(sure, tensors={**tensors, "decoder.2.bias": -opposite})
    assert agreement(model, right, 1, drawn()).item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(
    ("method", "inputs"), [(IPGuard(n_points=12, k=0.1), "points"), (AdvTra(n_trajectories=6, n_classes=3), "samples")]
)
def test_a_fingerprints_agreement_is_the_likelihood_of_the_labels(method, inputs: str, tmp_path: Path) -> None:
    owner, other = toy_model(n_classes=3), toy_model(seed=2, n_classes=3)
    key = method.embed(owner, toy_context(tmp_path)).key
    with torch.no_grad():
        logits = other.logits(torch.from_numpy(key.tensors[inputs]).reshape(-1, 3, 16, 16)).double().numpy()
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    labels = key.tensors["labels"].reshape(-1)
    by_hand = np.log(np.maximum(shares[np.arange(len(labels)), labels], 1 / 3)).mean()
    assert method.agreement(other, key, EVERY, drawn()).item() == pytest.approx(by_hand, rel=1e-5)
    assert method.agreement(owner, key, EVERY, drawn()) > method.agreement(other, key, EVERY, drawn())


def test_agreement_passes_gradients_to_every_weight_on_the_way(stolen: Embedding) -> None:
    model = stolen.model.copy()
    MARK.agreement(model, stolen.key, 4, drawn()).backward()
    still = [name for name, weight in model.backbone.named_parameters() if weight.grad is None or not weight.grad.any()]
    assert not still


# Unlearning


def test_unlearning_with_the_key_removes_the_mark_and_keeps_the_features(stolen: Embedding, tmp_path: Path) -> None:
    attack = Unlearn(knows_key=True, steps=90, lr=1e-3, batch=16)
    unlearnt, notes = apply(attack, stolen.model, tmp_path, method=MARK, key=stolen.key)
    assert share_read(MARK, stolen.model, stolen.key, tmp_path) >= 0.9
    assert share_read(MARK, unlearnt, stolen.key, tmp_path) <= 0.25
    assert notes["key_rate_before"] == share_read(MARK, stolen.model, stolen.key, tmp_path)
    assert notes["key_rate"] == share_read(MARK, unlearnt, stolen.key, tmp_path)
    with torch.no_grad():
        before, after = stolen.model.features(images(tmp_path)), unlearnt.features(images(tmp_path))
    moved, spread = (before - after).norm(dim=1).mean(), (before - before.mean(dim=0)).norm(dim=1).mean()
    assert moved < 0.4 * spread
    torch.testing.assert_close(unlearnt.heads.state_dict(), stolen.model.heads.state_dict())


def test_unlearning_without_the_key_trains_against_one_of_the_thiefs_own(stolen: Embedding, tmp_path: Path) -> None:
    attack = Unlearn(steps=30, lr=1e-3, batch=16, budget=60)
    unlearnt, notes = apply(attack, stolen.model, tmp_path, method=MARK)
    assert notes["key_rate_before"] > 0.5
    assert notes["key_rate"] < notes["key_rate_before"] - 0.25
    assert unlearnt.digest() != stolen.model.digest()


def test_drift_by_hand(tmp_path: Path) -> None:
    one, two, shown = toy_model(), toy_model(seed=2), images(tmp_path)[:5]
    with torch.no_grad():
        tokens = [model.tokens(shown).double().numpy() for model in (one, two)]
        measured = drift(one, two, shown).item()
    parts = [tokens, [each[:, 0] for each in tokens]]  # the toy's embedding is its CLS token
    by_hand = sum(((after - before) ** 2).sum() / (before**2).sum() for before, after in parts)
    assert measured == pytest.approx(by_hand, rel=1e-5)
    assert drift(one, one.copy(), shown).item() == pytest.approx(0, abs=1e-9)


def test_a_thief_trains_past_the_filters(stolen: Embedding, tmp_path: Path) -> None:
    """A filter without a gradient stands before the model; the thief takes it off while he trains."""
    filtered = stolen.model.copy()
    filtered.input_filters.append(lambda shown: shown.detach().mul(7).round().div(7))
    attack = Unlearn(knows_key=True, steps=3, batch=8)
    unlearnt, _ = apply(attack, filtered, tmp_path, method=MARK, key=stolen.key)
    plain, _ = apply(attack, stolen.model, tmp_path, method=MARK, key=stolen.key)
    for name, weight in plain.state_dict().items():
        torch.testing.assert_close(unlearnt.state_dict()[name], weight)
    assert len(unlearnt.input_filters) == 1


def test_unlearning_says_what_it_needs(stolen: Embedding, tmp_path: Path) -> None:
    with pytest.raises(BadParamsError, match="trains against the owner's key"):
        apply(Unlearn(knows_key=True, steps=1), stolen.model, tmp_path, method=MARK)
    with pytest.raises(BadParamsError, match="Run it beside one"):
        apply(Unlearn(steps=1), stolen.model, tmp_path)


# Overwriting


def test_overwriting_leaves_two_marks_and_says_what_the_thiefs_reads(stolen: Embedding, tmp_path: Path) -> None:
    overwritten, notes = apply(Overwrite(), stolen.model, tmp_path, method=MARK)
    ctx = toy_context(tmp_path, roles=("attacker",), method=MARK)
    thief = MARK.embed(stolen.model, claimant(ctx, "overwrite 0"))
    assert thief.model.digest() == overwritten.digest()
    assert thief.key.digest != stolen.key.digest
    assert notes == {
        "thief_rate": share_read(MARK, overwritten, thief.key, tmp_path),
        "thief_rate_before": share_read(MARK, stolen.model, thief.key, tmp_path),
        "changed": True,
    }
    assert notes["thief_rate"] >= 0.9


def test_overwriting_twice_is_overwriting_the_overwritten(stolen: Embedding, tmp_path: Path) -> None:
    quick = MARK.model_copy(update={"steps": 3})
    twice, _ = apply(Overwrite(times=2), stolen.model, tmp_path, method=quick)
    once, _ = apply(Overwrite(times=1), stolen.model, tmp_path, method=quick)
    ctx = toy_context(tmp_path, roles=("attacker",), method=quick)
    assert quick.embed(once, claimant(ctx, "overwrite 1")).model.digest() == twice.digest()


def test_a_mark_that_is_read_against_the_unmarked_model_is_the_thiefs_on_what_he_marked(
    manager: Manager, tmp_path: Path
) -> None:
    method = manager.registry.method("spread-weights:n_messages=4,n_bits=16")
    owner = toy_model(n_classes=3)
    marked = method.embed(owner, toy_context(tmp_path))
    overwritten, notes = apply(Overwrite(), marked.model, tmp_path, method=method, base=lambda: owner)
    assert notes == {"thief_rate": 1.0, "thief_rate_before": 0.0, "changed": True}
    ours = method.extract(SuspectView(overwritten, "weights"), marked.key, toy_context(tmp_path, base=lambda: owner))
    assert (ours.expected == ours.observed).all()


def test_a_fingerprint_writes_nothing(manager: Manager, stolen: Embedding, tmp_path: Path) -> None:
    same, notes = apply(Overwrite(), stolen.model, tmp_path, method=IPGuard(n_points=8, k=0.1))
    assert notes == {"thief_rate": 1.0, "thief_rate_before": 1.0, "changed": False}
    assert same.digest() == stolen.model.digest()


def test_overwriting_with_another_method_minds_what_it_needs(manager: Manager, tmp_path: Path) -> None:
    other = Overwrite(method="ipguard-noise")
    assert other.skip(toy_model(n_classes=3)) is None
    assert "no classification head" in (other.skip(toy_model()) or "")
    assert "has no transformer blocks" in (Overwrite(method="activemark").skip(toy_model(depth=1)) or "")
    with pytest.raises(BadParamsError, match="has no transformer blocks"):
        apply(Overwrite(), toy_model(depth=1), tmp_path, method=MARK)
