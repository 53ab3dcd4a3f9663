"""timm models as `amb` backbones: vision transformers cut into blocks, other networks whole."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import timm
import torch
from timm.layers import Attention, Mlp
from timm.models.vision_transformer import Block, VisionTransformer
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

    def parts(self, block: int) -> amb.BlockParts | None:
        """Views of a plain block: one matrix for query, key and value, then projection and a two-layer MLP."""
        module = self.net.blocks[block]
        attention, mlp = getattr(module, "attn", None), getattr(module, "mlp", None)
        if type(module) is not Block or type(attention) is not Attention or type(mlp) is not Mlp:
            return None
        if not (_is_identity(attention.q_norm, attention.norm, mlp.norm) and attention.gate is None):
            return None
        if not all(isinstance(layer, nn.Linear) for layer in (attention.qkv, attention.proj, mlp.fc1, mlp.fc2)):
            return None
        weights = attention.qkv.weight.data.chunk(3)
        biases = attention.qkv.bias.data.chunk(3) if attention.qkv.bias is not None else (None, None, None)
        query, key, value = (amb.Affine(*pair) for pair in zip(weights, biases, strict=True))
        return amb.BlockParts(
            module.norm1,
            query,
            key,
            value,
            _affine(attention.proj),
            module.norm2,
            _affine(mlp.fc1),
            _affine(mlp.fc2),
            attention.num_heads,
            (getattr(module.ls1, "gamma", None), getattr(module.ls2, "gamma", None)),
        )

    def keep_blocks(self, kept: Sequence[int]) -> None:
        self.net.blocks = nn.Sequential(*(self.net.blocks[index] for index in kept))

    def drop_registers(self) -> None:
        """Registers stand behind CLS; where they have position embeddings of their own, those go too."""
        net, n = self.net, self.net.num_reg_tokens
        n_class = self.n_prefix - n
        if net.pos_embed is not None and not net.no_embed_class:
            places = net.pos_embed.data
            net.pos_embed = nn.Parameter(torch.cat([places[:, :n_class], places[:, n_class + n :]], dim=1))
        net.reg_token = None
        net.num_reg_tokens, net.num_prefix_tokens, self.n_prefix = 0, n_class, n_class

    def resize(self, image_size: int) -> None:
        """Interpolate the position embedding as timm itself does."""
        if image_size % self.net.patch_embed.patch_size[0]:
            raise amb.CheckpointError(f"Images of {image_size} pixels cannot be cut into whole patches.")
        self.net.set_input_size(img_size=image_size)
        self.image_size = image_size

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


def _affine(layer: nn.Linear) -> amb.Affine:
    return amb.Affine(layer.weight.data, layer.bias.data if layer.bias is not None else None)


def _is_identity(*layers: nn.Module) -> bool:
    return all(isinstance(layer, nn.Identity) for layer in layers)


def _input_of(net: nn.Module) -> tuple[int, tuple[float, ...], tuple[float, ...]]:
    """Image size, mean and std from the library's own configuration."""
    config = cast(Mapping[str, Any], getattr(net, "pretrained_cfg", {}))
    patches = getattr(net, "patch_embed", None)
    size = getattr(patches, "img_size", None)
    side = size[0] if isinstance(size, tuple) else config.get("input_size", (3, 224, 224))[1]
    return side, tuple(config.get("mean", _UNKNOWN_MEAN)), tuple(config.get("std", _UNKNOWN_MEAN))
