"""The smallest network that is a backbone: the model of the synthetic steps."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from amb.api.vision import Backbone, VisionModel

SIZE = 16


class SpeckBackbone(Backbone):
    """Four patches, a linear layer on each; their mean is the embedding."""

    image_size = SIZE
    mean = (0.5, 0.5, 0.5)
    std = (0.5, 0.5, 0.5)
    dim = 4
    n_prefix = 0

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, self.dim, SIZE // 2, stride=SIZE // 2)

    @property
    def blocks(self) -> Sequence[nn.Module]:
        return []

    @property
    def tail(self) -> Sequence[nn.Module]:
        return []

    def embed(self, images: Tensor) -> Tensor:
        return self.patches(images).flatten(2).transpose(1, 2)

    def finish(self, tokens: Tensor) -> Tensor:
        return tokens

    def pool(self, tokens: Tensor) -> Tensor:
        return tokens.mean(dim=1)


def make_speck(seed: int) -> VisionModel:
    """A speck with weights of its own."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed costs more than the rest of it
        return VisionModel(f"speck/{seed}", {"loader": "speck"}, SpeckBackbone(), {}).eval()
