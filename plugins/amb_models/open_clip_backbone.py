"""The vision towers of open_clip as `amb` backbones; the text tower is never built."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from open_clip.model import _build_vision_tower
from open_clip.modified_resnet import ModifiedResNet
from open_clip.pretrained import get_pretrained_cfg
from open_clip.timm_model import TimmModel
from open_clip.transformer import LayerScale, ResidualAttentionBlock, VisionTransformer
from torch import Tensor, nn

import amb
from amb import Backbone, refuse_misfit
from amb_models.affine import view_linear
from amb_models.timm_backbone import tower, wrap

_OPENAI: tuple[list[float], list[float]] = (
    [0.48145466, 0.4578275, 0.40821073],
    [0.26862954, 0.26130258, 0.27577711],
)


class _OpenClipBackbone(Backbone):
    """open_clip's own networks: their weights lie in those of a whole model, under `visual.`."""

    library_prefixes = ("visual.",)

    def library_shapes(self) -> dict[str, tuple[int, ...]]:
        return {name: tuple(each.shape) for name, each in cast(nn.Module, self.net).state_dict().items()}

    def load_library(self, state: dict[str, Tensor], source: str) -> None:
        """Take the vision tower of a whole model, or its own weights."""
        _load_state(cast(nn.Module, self.net), tower(state), source)


class OpenClipViT(_OpenClipBackbone):
    """open_clip's own VisionTransformer; every step is the library's."""

    n_prefix = 1
    drop_registers = Backbone.drop_registers

    def __init__(self, net: VisionTransformer) -> None:
        super().__init__()
        self.net = net
        self.image_size = net.image_size[0]
        self.dim = net.transformer.width
        self._normed_late = net.attn_pool is not None or net.final_ln_after_pool

    @property
    def blocks(self) -> Sequence[nn.Module]:
        return list(self.net.transformer.resblocks)

    @property
    def tail(self) -> Sequence[nn.Module]:
        return [self.net.ln_post] if self.net.attn_pool is None else [self.net.attn_pool, self.net.ln_post]

    def parts(self, block: int) -> amb.BlockParts | None:
        """Views of a default block, whose query, key and value lie in one parameter of its attention."""
        module = self.net.transformer.resblocks[block]
        if type(module) is not ResidualAttentionBlock or not module.attn._qkv_same_embed_dim:
            return None
        attention, mlp = module.attn, module.mlp
        if not all(isinstance(each, nn.Linear) for each in (attention.out_proj, mlp.c_fc, mlp.c_proj)):
            return None
        weights, biases = attention.in_proj_weight.data.chunk(3), attention.in_proj_bias.data.chunk(3)
        query, key, value = (amb.Affine(*pair) for pair in zip(weights, biases, strict=True))
        scales = [each.gamma if isinstance(each, LayerScale) else None for each in (module.ls_1, module.ls_2)]
        return amb.BlockParts(
            module.ln_1,
            query,
            key,
            value,
            view_linear(attention.out_proj),
            module.ln_2,
            view_linear(mlp.c_fc),
            view_linear(mlp.c_proj),
            attention.num_heads,
            (scales[0], scales[1]),
        )

    def matrices(self) -> list[amb.Matrix]:
        """Those of its modules, and the projection, which the library keeps as a bare parameter, (in, out)."""
        return [*super().matrices(), amb.Matrix("net.proj", self.net, "proj", output_axis=1)]

    def keep_blocks(self, kept: Sequence[int]) -> None:
        transformer = self.net.transformer
        transformer.resblocks = nn.ModuleList(transformer.resblocks[index] for index in kept)
        transformer.layers = len(transformer.resblocks)

    def resize(self, image_size: int) -> None:
        """Interpolate the position embedding as the library does when it loads weights of another size."""
        patch = self.net.patch_size[0]
        if image_size % patch:
            raise amb.CheckpointError(f"Images of {image_size} pixels cannot be cut into whole patches.")
        old, new = self.net.grid_size, (image_size // patch, image_size // patch)
        first, places = self.net.positional_embedding.data.split([1, old[0] * old[1]])
        grid = places.T.reshape(1, -1, *old)
        moved = nn.functional.interpolate(grid, size=new, mode="bicubic", antialias=True, align_corners=False)
        self.net.positional_embedding = nn.Parameter(torch.cat([first, moved[0].flatten(1).T]))
        self.net.grid_size, self.net.image_size = new, (image_size, image_size)
        self.image_size = image_size

    def embed(self, images: Tensor) -> Tensor:
        return cast(Tensor, self.net._embeds(images))

    def finish(self, tokens: Tensor) -> Tensor:
        """Normed, unless the library norms what it has pooled."""
        return tokens if self._normed_late else cast(Tensor, self.net.ln_post(tokens))

    def pool(self, tokens: Tensor) -> Tensor:
        pooled = (self.net._pool if self._normed_late else self.net._global_pool)(tokens)[0]
        return cast(Tensor, pooled @ self.net.proj)


class OpenClipResNet(_OpenClipBackbone):
    """open_clip's ModifiedResNet: a map of places, pooled by attention."""

    n_prefix = 0

    def __init__(self, net: ModifiedResNet) -> None:
        super().__init__()
        self.net = net
        self.image_size = net.image_size
        self.dim = net.attnpool.c_proj.in_features

    @property
    def blocks(self) -> Sequence[nn.Module]:
        return []

    @property
    def tail(self) -> Sequence[nn.Module]:
        return [self.net.attnpool]

    def embed(self, images: Tensor) -> Tensor:
        places = self.net.stem(images)
        for layer in (self.net.layer1, self.net.layer2, self.net.layer3, self.net.layer4):
            places = layer(places)
        return cast(Tensor, places.flatten(2).transpose(1, 2))  # of (n, dim, height, width)

    def finish(self, tokens: Tensor) -> Tensor:
        return tokens

    def pool(self, tokens: Tensor) -> Tensor:
        side = self.image_size // 32
        return cast(Tensor, self.net.attnpool(torch.unflatten(tokens.transpose(1, 2), 2, (side, side))))


def build(
    embed_dim: int, vision: Mapping[str, Any], quick_gelu: bool, mean: Sequence[float], std: Sequence[float]
) -> amb.VisionModel:
    """An untrained vision tower."""
    try:
        net = _build_vision_tower(embed_dim, dict(vision), quick_gelu)
    except (TypeError, ValueError, AssertionError, RuntimeError, ZeroDivisionError) as error:
        raise amb.CheckpointError(f"open_clip cannot build a tower of {dict(vision)}: {error}.") from None
    backbone = _wrap_network(net)
    backbone.mean, backbone.std = tuple(mean), tuple(std)
    architecture = {
        "loader": "open_clip",
        "embed_dim": embed_dim,
        "quick_gelu": quick_gelu,
        "vision": dict(vision),
        "mean": list(mean),
        "std": list(std),
    }
    return amb.VisionModel("open_clip", architecture, backbone)


def find_colours(name: str, tag: str) -> tuple[list[float], list[float]]:
    """Mean and std of the images that a model was trained on."""
    settings = get_pretrained_cfg(name, tag)
    mean, std = settings.get("mean", _OPENAI[0]), settings.get("std", _OPENAI[1])
    return list(mean), list(std)


def _wrap_network(net: nn.Module) -> Backbone:
    if isinstance(net, VisionTransformer):
        return OpenClipViT(net)
    if isinstance(net, ModifiedResNet):
        return OpenClipResNet(net)
    timm_model = cast(TimmModel, net)
    return wrap(timm_model.trunk, timm_model.head, timm_model.image_size[0])


def _load_state(net: nn.Module, state: dict[str, Tensor], source: str) -> None:
    refuse_misfit(f"{source} does not fit its network", net, state)
    net.load_state_dict(state)
