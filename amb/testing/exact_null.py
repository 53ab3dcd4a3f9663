"""The contract of methods whose null is exact: p on innocent models, over many keys."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch

from amb.api.interfaces import Method
from amb.api.records import Evidence, Key
from amb.api.vision import SuspectView, VisionModel
from amb.evaluation.claims import exact_test
from amb.testing.toy import toy_context, toy_model


class ExactNull:
    """What a method with `null = "exact"` promises: on models that were made without the key, p is not too small too often.

    Fresh keys are drawn and read on innocent models; their p-values have to be super-uniform, by a one-sided
    Kolmogorov-Smirnov test. A method that learns its key from the model fails, for it reads on the model's relatives.
    """

    n_keys = 1000
    smallest = 1e-3
    """The p-value of the Kolmogorov-Smirnov test below which the promise is broken."""

    @pytest.fixture
    def method(self) -> Method:
        """The method under test, with parameters that make it quick."""
        raise NotImplementedError("override the fixture `method`")

    @pytest.fixture
    def owner(self) -> VisionModel:
        """The model whose keys are drawn."""
        return toy_model(seed=1, n_classes=3)

    @pytest.fixture
    def innocents(self, method: Method, owner: VisionModel, tmp_path: Path) -> Mapping[str, VisionModel]:
        """Models that were made without the keys: the unmarked one, its relatives, one marked with another key, others."""
        moved = owner.copy()
        with torch.no_grad(), torch.random.fork_rng():
            torch.manual_seed(0)
            for weight in moved.parameters():
                weight.add_(0.05 * weight.std(correction=0) * torch.randn_like(weight))
        other_key = method.embed(owner, toy_context(tmp_path, "another")).model
        return {"unmarked": owner, "moved": moved, "other key": other_key, "other": toy_model(seed=2, n_classes=3)}

    def test_says_so(self, method: Method) -> None:
        assert method.null == "exact"

    def test_p_is_super_uniform_on_innocent_models(
        self, method: Method, owner: VisionModel, innocents: Mapping[str, VisionModel], tmp_path: Path
    ) -> None:
        from scipy.stats import kstest

        key = method.embed(owner, toy_context(tmp_path)).key
        for name, model in innocents.items():
            found = [
                exact_test(self.read(method, self.draw_key(method, key, owner, draw, tmp_path), model, owner, tmp_path))
                for draw in range(self.n_keys)
            ]
            test = kstest([each.p_value for each in found], "uniform", alternative="greater")
            assert test.pvalue > self.smallest, f"p-values on {name} are too small too often ({test.pvalue:.1e})"

    def draw_key(self, method: Method, key: Key, owner: VisionModel, draw: int, folder: Path) -> Key:
        """A fresh key: cheaply where the method can draw one anew, else by embedding again."""
        context = toy_context(folder, f"key {draw}")
        try:
            return method.redraw(key, context.generator("secret"))
        except NotImplementedError:
            return method.embed(owner, context).key

    def read(self, method: Method, key: Key, model: VisionModel, owner: VisionModel, folder: Path) -> Evidence:
        """Extract, as the engine does."""
        return method.extract(SuspectView(model, method.access), key, toy_context(folder, roles=(), base=lambda: owner))
