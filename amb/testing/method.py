"""The contract of methods."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from amb.api.context import Context
from amb.api.interfaces import Method
from amb.api.records import Embedding, Evidence, Key
from amb.api.types import ACCESS_LEVELS
from amb.api.vision import SuspectView, VisionModel
from amb.evaluation.rates import bit_error_rate, detection_rate, errors
from amb.testing.component import ComponentContract
from amb.testing.toy import toy_context, toy_model


class MethodContract(ComponentContract):
    """What every method promises. The owner is a toy transformer unless you override `owner`."""

    n_classes = 3
    _embeddings: ClassVar[dict[Any, Embedding]] = {}

    @pytest.fixture
    def method(self) -> Method:
        """The method under test, with parameters that make it quick."""
        raise NotImplementedError("override the fixture `method`")

    @pytest.fixture
    def owner(self) -> VisionModel:
        """The model to protect."""
        return toy_model(seed=1, n_classes=self.n_classes)

    @pytest.fixture
    def independent(self) -> VisionModel:
        """A model that has nothing to do with the owner's."""
        return toy_model(seed=2, n_classes=self.n_classes)

    def test_declares_itself(self, method: Method) -> None:
        self.check_component(method)
        assert method.access in ACCESS_LEVELS
        assert method.default_tau >= 0

    def test_verifies_its_own_model_and_no_other(
        self, method: Method, owner: VisionModel, independent: VisionModel, tmp_path: Path
    ) -> None:
        embedding = self.embedded(method, owner, tmp_path)
        tau = method.default_tau
        own = self.read(method, embedding.model, embedding.key, tmp_path)
        assert detection_rate(errors(own), tau) >= 0.9
        if method.skip(independent.facts(), embedding.key) is None:
            foreign = self.read(method, independent, embedding.key, tmp_path)
            assert detection_rate(errors(foreign), tau) <= 0.5
            assert bit_error_rate(foreign) > bit_error_rate(own)

    def test_key_survives_saving(self, method: Method, owner: VisionModel, tmp_path: Path) -> None:
        embedding = self.embedded(method, owner, tmp_path)
        embedding.key.save(tmp_path / "key.safetensors")
        loaded = Key.load(tmp_path / "key.safetensors")
        assert loaded.digest == embedding.key.digest
        first = self.read(method, embedding.model, embedding.key, tmp_path)
        second = self.read(method, embedding.model, loaded, tmp_path)
        np.testing.assert_array_equal(first.observed, second.observed)
        np.testing.assert_array_equal(first.expected, second.expected)

    def test_same_seed_same_key_other_seed_other_key(self, method: Method, owner: VisionModel, tmp_path: Path) -> None:
        one = self.embedded(method, owner, tmp_path)
        same = method.embed(owner, self.context(tmp_path))
        other = method.embed(owner, self.context(tmp_path, "1"))
        assert one.key.digest == same.key.digest
        assert one.model.digest() == same.model.digest()
        assert one.key.digest != other.key.digest
        own = self.read(method, one.model, one.key, tmp_path)
        foreign = self.read(method, one.model, other.key, tmp_path)
        assert bit_error_rate(foreign) >= bit_error_rate(own), "a foreign key reads better than one's own"

    def test_leaves_the_suspect_as_it_was(self, method: Method, owner: VisionModel, tmp_path: Path) -> None:
        embedding = self.embedded(method, owner, tmp_path)
        suspect = embedding.model.copy()
        before = suspect.digest()
        view = SuspectView(suspect, method.access)
        method.extract(view, embedding.key, self.context(tmp_path, roles=()))
        assert suspect.digest() == before
        if method.access != "weights":
            assert view.queries > 0, "count the images shown to the suspect"

    def embedded(self, method: Method, owner: VisionModel, folder: Path) -> Embedding:
        """The embedding that the checks share, made for the first of them; a copy of it for each."""
        made, before = self._embeddings, owner.digest()
        asked = (self.__class__, method.canonical(), before)
        if asked not in made:
            embedding = method.embed(owner, self.context(folder))
            assert owner.digest() == before, "embed changed the owner's model"
            made[asked] = embedding
        found = made[asked]
        return replace(found, model=found.model.copy())

    def context(self, folder: Path, *axes: str, roles: Any = ("owner", "trigger")) -> Context:
        """The context that the engine would give."""
        scratch = folder / "scratch"
        scratch.mkdir(exist_ok=True)
        return toy_context(scratch, *axes, roles=roles, base=lambda: toy_model(seed=1, n_classes=self.n_classes))

    def read(self, method: Method, suspect: VisionModel, key: Key, folder: Path) -> Evidence:
        """Extract, as the engine does."""
        return method.extract(SuspectView(suspect, method.access), key, self.context(folder, roles=()))
