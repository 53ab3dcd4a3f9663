"""A linear layer of any library as views of its weights, for the parts of a block."""

from __future__ import annotations

from torch import nn

import amb


def view_linear(layer: nn.Linear) -> amb.Affine:
    """Its weight and bias; what is written into them changes the layer."""
    return amb.Affine(layer.weight.data, layer.bias.data if layer.bias is not None else None)
