"""timm models as `amb` backbones: vision transformers cut into blocks, other networks whole."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import timm
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

import amb
from amb.vision import Backbone

_UNKNOWN_MEAN = (0.5, 0.5, 0.5)


class TimmViT(Backbone):
    """A timm VisionTransformer; every step is the library's own."""

    def __init__(self, net: VisionTransformer) -> None:
        super().__init__()
        self.net = net
        self.image_size, self.mean, self.std = _input_of(net)
        self.dim = net.embed_dim
        self.n_prefix = net.num_prefix_tokens

    @property
    def blocks(self) -> Sequence[nn.Module]:
        return list(self.net.blocks)

    @property
    def tail(self) -> Sequence[nn.Module]:
        return [part for part in (self.net.norm, self.net.fc_norm, self.net.attn_pool) if part is not None]

    def embed(self, images: Tensor) -> Tensor:
        tokens = self.net._pos_embed(self.net.patch_embed(images))
        return cast(Tensor, self.net.norm_pre(self.net.patch_drop(tokens)))

    def finish(self, tokens: Tensor) -> Tensor:
        return cast(Tensor, self.net.norm(tokens))

    def pool(self, tokens: Tensor) -> Tensor:
        return cast(Tensor, self.net.forward_head(tokens, pre_logits=True))


class TimmMap(Backbone):
    """Any other timm network with a feature map: its places are the patch tokens, and it has no blocks to cut at."""

    n_prefix = 0

    def __init__(self, net: nn.Module, image_size: int | None = None) -> None:
        super().__init__()
        self.net = net
        configured, self.mean, self.std = _input_of(net)
        self.image_size = image_size or configured
        self.dim = cast(int, net.num_features)

    @property
    def blocks(self) -> Sequence[nn.Module]:
        return []

    def embed(self, images: Tensor) -> Tensor:
        features = cast(Tensor, cast(Any, self.net).forward_features(images))  # (n, dim, height, width)
        return features.flatten(2).transpose(1, 2)

    def finish(self, tokens: Tensor) -> Tensor:
        return tokens

    def pool(self, tokens: Tensor) -> Tensor:
        return tokens.mean(dim=1)


def build(name: str, options: Mapping[str, Any], image_size: int | None = None) -> amb.VisionModel:
    """An untrained network; only names from timm's own list are taken.

    `image_size` is for networks that take any size; a transformer's is its option `img_size`.
    """
    if not timm.is_model(name):
        raise amb.unknown_name("timm model", name, timm.list_models(), "`timm.list_models()` shows all")
    settings = {key: tuple(value) if isinstance(value, list) else value for key, value in options.items()}
    try:
        net = timm.create_model(name, pretrained=False, num_classes=0, **settings)
    except (TypeError, ValueError, AssertionError, RuntimeError) as error:
        raise amb.CheckpointError(f"timm cannot build {name} with {dict(options)}: {error}.") from None
    architecture = {"loader": "timm", "name": name, "options": dict(options)}
    if image_size:
        architecture["image_size"] = image_size
    return _wrap(net, f"timm/{name}", architecture)


def load_pretrained(name: str) -> amb.VisionModel:
    """A network with the library's trained weights. Raises MissingError where they cannot be had."""
    if not timm.is_model(name):
        raise amb.unknown_name("timm model", name, timm.list_models(pretrained=True), "`timm.list_models()` shows all")
    try:
        net = timm.create_model(name, pretrained=True, num_classes=0)
    except (OSError, RuntimeError) as error:
        raise amb.MissingError(
            f"The weights of timm/{name} are not in the local cache and cannot be fetched "
            f"({type(error).__name__}). Fetch them once where there is a network: timm.create_model('{name}', pretrained=True)."
        ) from None
    return _wrap(net, f"timm/{name}", {"loader": "timm", "name": name, "options": {}})


def _wrap(net: nn.Module, ref: str, architecture: Mapping[str, Any]) -> amb.VisionModel:
    if isinstance(net, VisionTransformer):
        return amb.VisionModel(ref, architecture, TimmViT(net))
    backbone = TimmMap(net, architecture.get("image_size"))
    size = backbone.image_size
    with torch.no_grad():
        features = cast(Any, net).eval().forward_features(torch.zeros(1, 3, size, size))
    if features.ndim != 4 or features.shape[1] != backbone.dim:
        raise amb.CheckpointError(
            f"{ref} yields {tuple(features.shape)}, which is no (n, channels, height, width) map."
        )
    return amb.VisionModel(ref, architecture, backbone)


def _input_of(net: nn.Module) -> tuple[int, tuple[float, ...], tuple[float, ...]]:
    """Image size, mean and std from the library's own configuration."""
    config = cast(Mapping[str, Any], getattr(net, "pretrained_cfg", {}))
    patches = getattr(net, "patch_embed", None)
    size = getattr(patches, "img_size", None)
    side = size[0] if isinstance(size, tuple) else config.get("input_size", (3, 224, 224))[1]
    return side, tuple(config.get("mean", _UNKNOWN_MEAN)), tuple(config.get("std", _UNKNOWN_MEAN))
