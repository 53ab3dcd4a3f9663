"""What every mark in weights whose bits are signs of projections has to show, whatever it projects."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar, Final

import numpy as np
import pytest
import torch
from scipy.stats import binom, kstest

import amb
from amb.evaluation.claims import exact_test
from amb.testing import ExactNull, toy_context
from amb.testing.toy import toy_model
from amb_attacks.forge import Forge

OWNER: Final = toy_model(seed=1, n_classes=3)
OTHER: Final = toy_model(seed=2, n_classes=3)


def read(method: Any, model: amb.VisionModel, key: amb.Key, folder: Path) -> amb.Evidence:
    """What `extract` reads, of weights alone."""
    evidence = method.extract(amb.SuspectView(model, "weights"), key, toy_context(folder, roles=()))
    assert isinstance(evidence, amb.Evidence)
    return evidence


def count_right(evidence: amb.Evidence) -> int:
    """Bits that are right."""
    return int((evidence.expected == evidence.observed).sum())


class SignMark(ExactNull):
    """Tests of a method; the file that inherits them has a fixture `embedding`, of `METHOD` on `OWNER`."""

    METHOD: ClassVar[Any]
    MARKING: ClassVar[ModuleType]
    """The module with the method's `open_carrier` and `project`."""
    COSINE: ClassVar[float]
    """That the features of the marked model keep at least."""
    UNLEARN: ClassVar[tuple[float, int]]
    """Learning rate and steps with which training against the key removes it."""

    @pytest.fixture
    def method(self) -> amb.Method:
        method: amb.Method = self.METHOD
        return method

    @pytest.mark.parametrize("model", [OWNER, OTHER], ids=["unmarked", "other"])
    def test_right_bits_of_innocent_models_are_binomial(
        self, model: amb.VisionModel, embedding: amb.Embedding, tmp_path: Path
    ) -> None:
        drawn, chance = torch.Generator().manual_seed(5), np.random.default_rng(5)
        keys = [self.METHOD.redraw(embedding.key, drawn) for _ in range(1000)]
        right, n = np.array([count_right(read(self.METHOD, model, key, tmp_path)) for key in keys]), self.METHOD.n_bits
        spread = binom.cdf(right - 1, n, 0.5) + chance.random(1000) * binom.pmf(right, n, 0.5)  # uniform if binomial
        assert kstest(spread, "uniform").pvalue > 0.001

    def test_the_mark_is_read_and_the_function_stays(self, embedding: amb.Embedding, tmp_path: Path) -> None:
        evidence = read(self.METHOD, embedding.model, embedding.key, tmp_path)
        assert count_right(evidence) == self.METHOD.n_bits
        assert exact_test(evidence).p_value == pytest.approx(2.0**-self.METHOD.n_bits)
        images = toy_context(tmp_path).split("test").batch(range(32)).images
        with torch.no_grad():
            cosine = torch.nn.functional.cosine_similarity(OWNER.features(images), embedding.model.features(images))
        assert self.COSINE < cosine.mean() < 1

    def test_training_against_the_key_removes_it(self, embedding: amb.Embedding, tmp_path: Path) -> None:
        method, model, drawn = self.METHOD, embedding.model.copy(), torch.Generator().manual_seed(0)
        carrier = self.MARKING.open_carrier(method, embedding.key)
        signs, found = 2.0 * carrier.message - 1, self.MARKING.project(model, carrier).double()
        by_hand = torch.log(torch.sigmoid(signs * found)).clamp(min=float(np.log(0.5))).mean()
        agreement = method.agreement(model, embedding.key, 8, drawn)
        assert agreement.item() == pytest.approx(by_hand.item(), rel=1e-5)
        lr, steps = self.UNLEARN
        optimizer = torch.optim.Adam(model.backbone.parameters(), lr=lr)
        for _ in range(steps):
            optimizer.zero_grad()
            method.agreement(model, embedding.key, 8, drawn).backward()
            optimizer.step()
        assert method.agreement(model, embedding.key, 8, drawn) < agreement
        assert not exact_test(read(method, model, embedding.key, tmp_path)).claim

    def test_grinding_finds_what_luck_gives(self, embedding: amb.Embedding, tmp_path: Path) -> None:
        ctx = toy_context(tmp_path, roles=("attacker",), method=self.METHOD, key=embedding.key)
        forged = Forge(what="secret", budget=400).forge(OTHER, ctx)
        found = exact_test(read(self.METHOD, OTHER, forged, tmp_path))
        assert ctx.notes["best_p"] == pytest.approx(found.p_value)
        assert 1e-3 / 400 < found.p_value < 10 / 400

    def test_another_list_of_layers_is_another_draw(self, embedding: amb.Embedding) -> None:
        layers = embedding.key.facts["layers"]
        fewer = replace(embedding.key, facts={**embedding.key.facts, "layers": dict(list(layers.items())[:1])})
        one, other = (self.MARKING.open_carrier(self.METHOD, key) for key in (embedding.key, fewer))
        assert not any(torch.equal(*pair) for pair in zip(one, other, strict=True) if _are_weights(*pair))
        assert self.METHOD.audit_key(fewer, OWNER).wrong
        assert self.METHOD.audit_key(embedding.key, OTHER).wrong
        sound = self.METHOD.audit_key(embedding.key, OWNER)
        assert not sound.wrong and not sound.trusted and len(sound.recomputed) == 2
        assert self.METHOD.audit_key(embedding.key).trusted

    def test_a_suspect_of_another_form_is_skipped(self, embedding: amb.Embedding) -> None:
        assert self.METHOD.skip(OTHER.facts(), embedding.key) is None
        assert "of another form" in (self.METHOD.skip(toy_model(depth=3).facts(), embedding.key) or "")


def _are_weights(one: Any, other: Any) -> bool:
    """Whether two parts of carriers are matrices, which two draws never share."""
    return isinstance(one, torch.Tensor) and one.ndim == 2 and isinstance(other, torch.Tensor)
