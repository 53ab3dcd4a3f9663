"""timm models as `amb` backbones: vision transformers cut into blocks, other networks whole."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from typing import Any, cast

import timm
import torch
from timm.layers import Attention, Mlp
from timm.models.beit import Beit
from timm.models.deit import VisionTransformerDistilled
from timm.models.eva import Eva
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn

import amb
from amb import Backbone, refuse_misfit
from amb_models.affine import view_linear

_UNKNOWN_MEAN = (0.5, 0.5, 0.5)


class _TimmBackbone(Backbone):
    """What all of timm's networks have in common: a pooling of their own, and perhaps open_clip's head behind it."""

    def __init__(self, net: nn.Module, head: nn.Module | None = None) -> None:
        super().__init__()
        self.net: Any = net
        self.head = head
        """What open_clip puts behind its timm towers; None for timm's own networks."""

    def pooled(self, places: Tensor) -> Tensor:
        """The output embedding of tokens, or of a map, in timm's own form."""
        pooled = cast(Tensor, self.net.forward_head(places, pre_logits=self.head is None))
        return pooled if self.head is None else cast(Tensor, self.head(pooled))

    library_prefixes = ("visual.trunk.", "visual.")

    def library_shapes(self) -> dict[str, tuple[int, ...]]:
        return {name: tuple(each.shape) for name, each in self._find_whole().state_dict().items()}

    def load_library(self, state: dict[str, Tensor], source: str) -> None:
        """Take weights by timm's names, or those that its filters know; where open_clip has put a head, by its names."""
        whole = self._find_whole()
        state = _filter_state(self.net, state, source) if self.head is None else tower(state)
        refuse_misfit(f"{source} does not fit its network", whole, state)
        whole.load_state_dict(state)

    def _find_whole(self) -> nn.Module:
        """What a file holds: timm's network, or open_clip's tower with its head."""
        return self.net if self.head is None else nn.ModuleDict({"trunk": self.net, "head": self.head})


class TimmViT(_TimmBackbone):
    """A timm VisionTransformer; every step is the library's own."""

    def __init__(self, net: nn.Module, head: nn.Module | None = None) -> None:
        super().__init__(net, head)
        self.image_size, self.mean, self.std = _find_input(net)
        self.dim = self.net.embed_dim
        self.n_prefix = self.net.num_prefix_tokens

    @property
    def blocks(self) -> Sequence[nn.Module]:
        return list(self.net.blocks)

    @property
    def tail(self) -> Sequence[nn.Module]:
        parts = [getattr(self.net, name, None) for name in ("norm", "fc_norm", "attn_pool")]
        return [part for part in (*parts, self.head) if part is not None]

    def parts(self, block: int) -> amb.BlockParts | None:
        """Views of a plain block: one matrix for query, key and value, then projection and a two-layer MLP."""
        module = self.net.blocks[block]
        attention: Any = getattr(module, "attn", None)
        mlp: Any = getattr(module, "mlp", None)
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
            view_linear(attention.proj),
            module.norm2,
            view_linear(mlp.fc1),
            view_linear(mlp.fc2),
            attention.num_heads,
            (getattr(module.ls1, "gamma", None), getattr(module.ls2, "gamma", None)),
        )

    def keep_blocks(self, kept: Sequence[int]) -> None:
        self.net.blocks = nn.Sequential(*(self.net.blocks[index] for index in kept))

    def drop_registers(self) -> None:
        """Registers stand behind CLS; where they have position embeddings of their own, those go too."""
        net, n = self.net, self.net.num_reg_tokens
        if not n:
            raise NotImplementedError("it has no register tokens")
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
        return self.pooled(tokens)


class TimmDistilled(TimmViT):
    """DeiT with a distillation token behind CLS, which is no register."""

    drop_registers = Backbone.drop_registers


class _Arguments:
    """Hands a block what timm's own forward hands it beside the tokens: a bias of its attention, or places.

    An object and not a function, so that a deep copy of the network takes its own one along.
    """

    def __init__(self, net: nn.Module, index: int) -> None:
        self.net, self.index = cast(Any, net), index

    def __call__(self, block: nn.Module, args: Any, given: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        return args, {**self.made(), **given}

    def made(self) -> dict[str, Any]:
        """What is handed over, by the name of the block's parameter."""
        raise NotImplementedError


class _BiasArguments(_Arguments):
    def made(self) -> dict[str, Any]:
        return {"shared_rel_pos_bias": self.net.rel_pos_bias()}


class _RopeArguments(_Arguments):
    def made(self) -> dict[str, Any]:
        rope = self.net.rope
        places = rope.get_embed() if hasattr(rope, "feat_shape") else rope.get_embed(self.net.patch_embed.grid_size)
        return {"rope": places[self.index] if getattr(self.net, "rope_mixed", False) else places}


class TimmBeit(TimmViT):
    """A timm Beit: positions are a bias of the attention, each block's own or one for all."""

    drop_registers = Backbone.drop_registers
    resize = Backbone.resize
    """Not there: timm interpolates the biases by an indexing that torch has announced to read in another way."""

    def __init__(self, net: Beit, head: nn.Module | None = None) -> None:
        super().__init__(net, head)
        if net.rel_pos_bias is not None:
            _hand_arguments(net, _BiasArguments)

    def embed(self, images: Tensor) -> Tensor:
        patches = self.net.patch_embed(images)
        tokens = torch.cat([self.net.cls_token.expand(len(images), -1, -1), patches], dim=1)
        return cast(Tensor, self.net.pos_drop(tokens if self.net.pos_embed is None else tokens + self.net.pos_embed))


class TimmEva(TimmViT):
    """A timm Eva: patches may be turned by their places in every block."""

    drop_registers = Backbone.drop_registers

    def __init__(self, net: Eva, head: nn.Module | None = None) -> None:
        super().__init__(net, head)
        if net.rope is not None:
            _hand_arguments(net, _RopeArguments)

    def embed(self, images: Tensor) -> Tensor:
        tokens, _ = self.net._pos_embed(self.net.patch_embed(images))
        return cast(Tensor, self.net.norm_pre(tokens))


class TimmMap(_TimmBackbone):
    """Any other timm network with a feature map: its places are the patch tokens, and it has no blocks to cut at."""

    n_prefix = 0

    def __init__(self, net: nn.Module, head: nn.Module | None = None, image_size: int | None = None) -> None:
        super().__init__(net, head)
        configured, self.mean, self.std = _find_input(net)
        self.image_size = image_size or configured
        self.dim = cast(int, net.num_features)
        self.channels_last = getattr(net, "output_fmt", "NCHW") == "NHWC"

    @property
    def blocks(self) -> Sequence[nn.Module]:
        return []

    def embed(self, images: Tensor) -> Tensor:
        places = cast(Tensor, self.net.forward_features(images))
        if self.channels_last:  # (n, height, width, dim)
            return places.flatten(1, 2)
        return places.flatten(2).transpose(1, 2)  # of (n, dim, height, width)

    def finish(self, tokens: Tensor) -> Tensor:
        return tokens

    def pool(self, tokens: Tensor) -> Tensor:
        side = math.isqrt(tokens.shape[1])
        places = torch.unflatten(tokens, 1, (side, side))  # (n, height, width, dim)
        return self.pooled(places if self.channels_last else places.permute(0, 3, 1, 2))


def build(
    name: str,
    options: Mapping[str, Any],
    image_size: int | None = None,
    colours: tuple[Sequence[float], Sequence[float]] | None = None,
) -> amb.VisionModel:
    """An untrained network; only names from timm's own list are taken. Mean and std are the library's where none are given.

    `image_size` is for networks that take any size; a transformer's is its option `img_size`.
    """
    if not timm.is_model(name):
        raise amb.unknown_name("timm model", name, timm.list_models(), "`timm.list_models()` shows all")
    settings = {key: tuple(value) if isinstance(value, list) else value for key, value in options.items()}
    try:
        net = timm.create_model(name, pretrained=False, num_classes=0, **settings)
    except (TypeError, ValueError, AssertionError, RuntimeError) as error:
        raise amb.CheckpointError(f"timm cannot build {name} with {dict(options)}: {error}.") from None
    architecture: dict[str, Any] = {"loader": "timm", "name": name, "options": dict(options)}
    if image_size:
        architecture["image_size"] = image_size
    backbone = wrap(net, image_size=image_size)
    if colours:
        backbone.mean, backbone.std = (tuple(each) for each in colours)
        architecture |= {"mean": list(backbone.mean), "std": list(backbone.std)}
    return amb.VisionModel(f"timm/{name}", architecture, backbone)


def hub_id(name: str) -> tuple[str, str] | None:
    """Repository and file of a model's weights by timm itself, for the few that its text does not tell."""
    settings = timm.get_pretrained_cfg(name) if timm.is_model(name) else None
    if settings is None or not settings.hf_hub_id:
        return None
    return settings.hf_hub_id, settings.hf_hub_filename or "pytorch_model.bin"


def wrap(net: nn.Module, head: nn.Module | None = None, image_size: int | None = None) -> Backbone:
    """The backbone that fits a timm network. Raises CheckpointError where none does."""
    for kind, fitting in _TRANSFORMERS:
        if isinstance(net, kind):
            fitted: Backbone = fitting(net, head)
            return fitted
    backbone = TimmMap(net, head, image_size)
    side = backbone.image_size
    with torch.no_grad():
        places = cast(Any, net).eval().forward_features(torch.zeros(1, 3, side, side))
    axis = -1 if backbone.channels_last else 1
    if places.ndim != 4 or places.shape[axis] != backbone.dim:
        what = f"timm's {type(net).__name__} yields {tuple(places.shape)}"
        raise amb.CheckpointError(f"{what}, which is no map of {backbone.dim} channels.")
    return backbone


_TRANSFORMERS: Sequence[tuple[type[nn.Module], Any]] = (
    (VisionTransformerDistilled, TimmDistilled),
    (VisionTransformer, TimmViT),
    (Beit, TimmBeit),
    (Eva, TimmEva),
)


def _hand_arguments(net: Any, kind: type[_Arguments]) -> None:
    for index, block in enumerate(net.blocks):
        block.register_forward_pre_hook(kind(net, index), with_kwargs=True)


def tower(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The vision tower's weights in those of a whole open_clip model; all of them where they are the tower's alone."""
    inside = {name.removeprefix("visual."): each for name, each in state.items() if name.startswith("visual.")}
    return inside or state


def _filter_state(net: nn.Module, state: dict[str, Tensor], source: str) -> dict[str, Tensor]:
    """What timm's own filter for such networks makes of weights, less a classifier."""
    settings = cast(Mapping[str, Any], net.pretrained_cfg)
    classifiers = settings.get("classifier") or ()
    names = [classifiers] if isinstance(classifiers, str) else classifiers
    known, classifier = net.state_dict(), {f"{name}.{part}" for name in names for part in ("weight", "bias")}
    _refuse_other_places(net, state, source)
    try:
        state = _find_filter(net)(state, net)
    except Exception as error:  # noqa: BLE001 (a filter meets names and shapes that it was not written for)
        raise amb.CheckpointError(f"{source} does not hold weights of timm's {type(net).__name__} ({error}).") from None
    return {name: weight for name, weight in state.items() if name in known or name not in classifier}


def _refuse_other_places(net: Any, state: Mapping[str, Tensor], source: str) -> None:
    """Raise CheckpointError where the file's position embedding is of other tokens than the network's; a grid may differ."""
    has = state.get("pos_embed")
    if getattr(net, "pos_embed", None) is None or has is None or has.ndim != 3 or "mask_token" in state:
        return
    without_class = getattr(net, "no_embed_class", False)
    n_ahead = 0 if without_class else getattr(net, "num_prefix_tokens", 0)
    n_patches = has.shape[1] - n_ahead
    if n_patches < 1 or math.isqrt(n_patches) ** 2 != n_patches:
        tokens = "a cls_token" if "cls_token" in state else "no cls_token"
        raise amb.CheckpointError(
            f"{source} has positions for {has.shape[1]} tokens and {tokens}; the architecture has {n_ahead} ahead of a square "
            'of patches. Set "class_token", "reg_tokens" and "no_embed_class" in its options as it was trained; without a '
            'cls_token that is "class_token": false, "global_pool": "avg".'
        )


def _find_filter(net: nn.Module) -> Any:
    """What timm passes the weights of such a network through; each of its modules keeps its own under this name."""
    module = sys.modules[type(net).__module__]
    return getattr(module, "checkpoint_filter_fn", lambda state, _: state)


def _is_identity(*layers: nn.Module) -> bool:
    return all(isinstance(layer, nn.Identity) for layer in layers)


def _find_input(net: nn.Module) -> tuple[int, tuple[float, ...], tuple[float, ...]]:
    """Image size, mean and std from the library's own configuration."""
    config = cast(Mapping[str, Any], getattr(net, "pretrained_cfg", {}))
    patches = getattr(net, "patch_embed", None)
    size = getattr(patches, "img_size", None)
    side = size[0] if isinstance(size, tuple) else config.get("input_size", (3, 224, 224))[1]
    return side, tuple(config.get("mean", _UNKNOWN_MEAN)), tuple(config.get("std", _UNKNOWN_MEAN))
