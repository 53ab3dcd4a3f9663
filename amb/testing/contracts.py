"""Contract tests: subclass, override the fixture that names your component, and inherit every check.

    class TestMine(MethodContract):
        @pytest.fixture
        def method(self):
            return MyMethod(steps=200)

The other fixtures, such as the toy model that is the owner, may be overridden too.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from amb.api.component import Component, parameter_rows
from amb.api.context import Context
from amb.api.interfaces import Attack, Method, ModelLoader, Reporter, Suite
from amb.api.records import Embedding, Evidence, Key
from amb.api.spec import parse_spec
from amb.api.types import ACCESS_LEVELS
from amb.api.vision import SuspectView, VisionModel
from amb.evaluation.claims import exact_test
from amb.evaluation.rates import bit_error_rate, detection_rate, errors
from amb.results.versions import SCHEMA
from amb.testing.toy import toy_context, toy_model


class ComponentContract:
    """What holds for every component."""

    def check_component(self, component: Component) -> None:
        """Round-trips through its text, documents itself and every parameter."""
        spec = parse_spec(component.canonical())
        assert spec.name == component.name
        assert type(component).create(spec.params) == component
        assert (type(component).__doc__ or "").strip(), "the class needs a docstring: `amb show` prints it"
        undocumented = [row["parameter"] for row in parameter_rows(type(component)) if not row["help"]]
        assert not undocumented, f"parameters without a docstring under them: {undocumented}"
        json.dumps(component.definition())


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


class AttackContract(ComponentContract):
    """What every attack promises."""

    @pytest.fixture
    def attack(self) -> Attack:
        """The attack under test, with parameters that make it quick."""
        raise NotImplementedError("override the fixture `attack`")

    @pytest.fixture(autouse=True)
    def _register_toy_loader(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Toy models are built again from their cards, wherever the contract runs."""
        from amb.plugin.manager import manager
        from amb.testing.toy import ToyLoader

        monkeypatch.setitem(manager().registry.loaders.classes, "toy", ToyLoader)

    @pytest.fixture
    def model(self) -> VisionModel:
        """The model to attack."""
        return toy_model(n_classes=3)

    def test_declares_itself(self, attack: Attack) -> None:
        self.check_component(attack)
        assert attack.strength_parameter is None or attack.strength_parameter in type(attack).model_fields

    def test_returns_a_new_model_that_answers(self, attack: Attack, model: VisionModel, tmp_path: Path) -> None:
        before = model.digest()
        attacked = self.attacked(attack, model, tmp_path)
        assert attacked is not model
        assert model.digest() == before, "the attack changed the model it was given"
        shared = {id(weight) for weight in model.parameters()} & {id(weight) for weight in attacked.parameters()}
        assert not shared, "the attacked model shares weights with the one it was given"
        side = model.backbone.image_size
        assert torch.isfinite(attacked.features(torch.rand(2, 3, side, side))).all()

    def test_is_deterministic_by_seed(self, attack: Attack, model: VisionModel, tmp_path: Path) -> None:
        once = self.attacked(attack, model, tmp_path)
        again = self.attacked(attack, model, tmp_path)
        assert once.digest() == again.digest()

    def test_the_form_that_it_announces_is_what_it_makes(
        self, attack: Attack, model: VisionModel, tmp_path: Path
    ) -> None:
        form = None if attack.skip(model) else attack.skeleton(model)
        if form is None:
            pytest.skip("the form stays, or the attack does not apply")
        made = self.attacked(attack, model, tmp_path).facts()
        assert form.facts()._replace(ref="") == made._replace(ref="")

    def test_strength_zero_leaves_the_features(self, attack: Attack, model: VisionModel, tmp_path: Path) -> None:
        if attack.strength_parameter is None:
            pytest.skip(f"{attack.name} has no strength that could be 0")
        idle = type(attack).create({**dict(attack), attack.strength_parameter: 0})
        attacked = self.attacked(idle, model, tmp_path)
        side = model.backbone.image_size
        images = torch.rand(4, 3, side, side, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            torch.testing.assert_close(attacked.eval().features(images), model.eval().features(images))

    def test_the_attacked_model_survives_saving(self, attack: Attack, model: VisionModel, tmp_path: Path) -> None:
        from amb.models.checkpoint import load_checkpoint, save_checkpoint
        from amb.python.catalog import build_model

        attacked = self.attacked(attack, model, tmp_path).eval()
        save_checkpoint(attacked, tmp_path / "attacked")
        loaded = load_checkpoint(tmp_path / "attacked", "loaded", build_model)
        side = model.backbone.image_size
        images = torch.rand(4, 3, side, side, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            torch.testing.assert_close(loaded.features(images), attacked.features(images), rtol=0, atol=0)
        assert loaded.max_access == attacked.max_access

    def attacked(self, attack: Attack, model: VisionModel, folder: Path, *axes: str) -> VisionModel:
        """Apply the attack as the engine would, with the context it declares; skip where it does not apply."""
        from amb.testing.toy import ToyMethod

        method = ToyMethod()
        if reason := attack.skip(model) or attack.skip_method(method):
            pytest.skip(reason)
        knows: dict[str, Any] = {"base": lambda: self.base(model)}
        if attack.knows != "model":
            knows["method"] = method
        if attack.knows == "key":
            knows["key"] = method.embed(model, toy_context(folder)).key
        return attack.apply(model, toy_context(folder, *axes, roles=("attacker",), **knows))

    def base(self, model: VisionModel) -> VisionModel:
        """The public model from which the attacked one was made: here, the same with a little noise."""
        twin = model.copy("base")
        generator = torch.Generator().manual_seed(7)
        with torch.no_grad():
            for weight in twin.parameters():
                weight.add_(0.01 * torch.randn(weight.shape, generator=generator))
        return twin


class SuiteContract(ComponentContract):
    """What every suite promises."""

    @pytest.fixture
    def suite(self) -> Suite:
        """The suite under test."""
        raise NotImplementedError("override the fixture `suite`")

    def test_declares_itself(self, suite: Suite) -> None:
        self.check_component(suite)

    def test_refers_to_models_that_have_a_loader(self, suite: Suite) -> None:
        from amb.plugin.manager import manager

        for ref in (suite.owner(), *(each.ref for each in suite.independents())):
            manager().registry.loader(ref)

    def test_names_sibling_attacks_that_exist(self, suite: Suite) -> None:
        from amb.plugin.manager import manager

        for sibling in suite.siblings():
            manager().registry.attack_chain(sibling.attack)

    @pytest.mark.parametrize("role", ["owner", "attacker", "trigger", "test"])
    def test_draws_the_same_images_again(self, suite: Suite, role: Any) -> None:
        split = suite.split(role)
        together, alone = split.batch([0, 1, 2]), split.batch([2])
        torch.testing.assert_close(together.images[2:], alone.images, rtol=0, atol=0)
        assert together.images.shape[:2] == (3, 3)
        assert together.images.min() >= 0
        assert together.images.max() <= 1
        assert int(together.labels.max()) < split.n_classes
        if split.n_mask_classes:
            assert together.masks is not None
            assert together.masks.shape == (3, *together.images.shape[-2:])

    def test_shares_no_image_between_roles(self, suite: Suite) -> None:
        seen: dict[bytes, str] = {}
        for role in ("owner", "attacker", "trigger", "test"):
            split = suite.split(role)
            for image in split.batch(range(min(64, len(split)))).images:
                assert seen.setdefault(image.numpy().tobytes(), role) == role


class ModelLoaderContract(ComponentContract):
    """What every model loader promises of the models it lists."""

    @pytest.fixture
    def loader(self) -> ModelLoader:
        """The loader under test."""
        raise NotImplementedError("override the fixture `loader`")

    def test_declares_itself(self, loader: ModelLoader) -> None:
        self.check_component(loader)

    def test_models_load_and_answer(self, loader: ModelLoader) -> None:
        for name in loader.names():
            model = loader.load(name)
            assert loader.digest(name) == model.digest()
            images = torch.rand(2, 3, model.backbone.image_size, model.backbone.image_size)
            with torch.no_grad():
                tokens, features = model.tokens(images), model.features(images)
            assert tokens.shape[2] == model.backbone.dim
            assert features.shape == (2, model.facts().n_features)

    def test_architecture_builds_the_same_network(self, loader: ModelLoader) -> None:
        from amb.python.catalog import build_model

        for name in loader.names():
            model = loader.load(name)
            json.dumps(model.architecture)
            rebuilt = build_model(model.architecture)
            shapes = {key: value.shape for key, value in model.backbone.state_dict().items()}
            assert {key: value.shape for key, value in rebuilt.backbone.state_dict().items()} == shapes

    def test_cut_forward_equals_whole_forward(self, loader: ModelLoader) -> None:
        for name in loader.names():
            model = loader.load(name)
            images = torch.rand(2, 3, model.backbone.image_size, model.backbone.image_size)
            with torch.no_grad():
                whole = model.tokens(images)
                for block in range(model.n_blocks):
                    torch.testing.assert_close(model.suffix(model.prefix(images, block), block), whole)


class ReporterContract:
    """What every reporter promises."""

    @pytest.fixture
    def reporter(self) -> Reporter:
        """The reporter under test."""
        raise NotImplementedError("override the fixture `reporter`")

    @pytest.fixture
    def document(self) -> Mapping[str, Any]:
        """The document of a run; by default one with an ok, a skipped and a failed cell."""
        return example_document()

    def test_renders_every_suspect(self, reporter: Reporter, document: Mapping[str, Any]) -> None:
        text = reporter.render(document)
        for cell in document["cells"]:
            assert cell["suspect"] in text


def example_document() -> dict[str, Any]:
    """A small document in the documented schema."""
    common = {"method": "m", "attack": "none", "seed": 0, "sibling": False, "cached": False, "digests": {}}
    judged = {
        "claim": True, "p_value": 0.1, "basis": "calibrated", "level": 0.1, "n_sources": 9, "alphabet": 2, "paper_rule": True, "bound": 0.1, "trial_fpr": 0.004, "detection_rate": 1.0, "interval": [0.9, 1.0], "curve": [1.0, 1.0],
        "bit_error_rate": 0.0, "tau": 0, "alpha": 0.05, "margin": 0.5, "n_trials": 8, "n_negatives": 1,
        "fpr_supported": 0.5, "p_values": {"binomial": 1e-9, "permutation": 1e-4, "calibrated": 0.5},
    }  # fmt: skip
    unjudged = dict.fromkeys(judged)
    measured = {
        "seconds": {"embed": 1.0, "attack": 0.0, "extract": 0.1},
        "utility": {"knn": 0.9},
        "peak_memory_mib": 1.0,
    }
    nothing: dict[str, Any] = {"seconds": {}, "utility": {}, "peak_memory_mib": None}
    suspects = [["good", 1.0], ["gone", None], ["bad", None]]
    columns = [{"name": "suspect", "digits": 3, "text": True}, {"name": "R(τ)", "digits": 3, "text": False}]
    table = {"title": "m · toy/owner", "columns": columns, "rows": suspects, "notes": ["gone: skipped: no"]}
    return {
        "schema": SCHEMA,
        "tables": [table],
        "run": {
            "id": "r", "folder": "f", "suite": "toy", "owner": "toy/owner", "methods": ["m"], "seed": 0, "embeddings": [],
        },
        "cells": [
            {**common, **judged, **measured, "suspect": "good", "kind": "positive", "status": "ok", "reason": ""},
            {**common, **unjudged, **nothing, "suspect": "gone", "kind": "negative", "status": "skipped", "reason": "no"},
            {**common, **unjudged, **nothing, "suspect": "bad", "kind": "positive", "status": "failed", "reason": "oh"},
        ],
    }  # fmt: skip
