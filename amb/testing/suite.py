"""The contract of suites."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from amb.api.interfaces import Suite
from amb.testing.component import ComponentContract


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
