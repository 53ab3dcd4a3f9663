"""The contract of attacks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from amb.api.interfaces import Attack
from amb.api.vision import VisionModel
from amb.testing.component import ComponentContract
from amb.testing.toy import toy_context, toy_model


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
