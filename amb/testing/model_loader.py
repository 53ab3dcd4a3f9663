"""The contract of model loaders."""

from __future__ import annotations

import json

import pytest
import torch

from amb.api.interfaces import ModelLoader
from amb.testing.component import ComponentContract


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
