"""Vision models of transformers as `amb` backbones, and the vision towers of its CLIP and SigLIP."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, Final, NamedTuple, cast

import torch
import transformers
from torch import Tensor, nn
from transformers.core_model_loading import revert_weight_conversion
from transformers.utils import logging

import amb
from amb import Backbone, hush_torchao
from amb_models.affine import view_linear

hush_torchao()  # transformers imports it where it is there, when a class is first asked for


class Names(NamedTuple):
    """What a family calls the parts of its blocks."""

    attention: str
    output: str
    norms: tuple[str, str]
    scales: tuple[str, str] | None = None


_VIT: Final = Names("attention", "o_proj", ("layernorm_before", "layernorm_after"))
_DINO: Final = Names("attention", "o_proj", ("norm1", "norm2"), ("layer_scale1", "layer_scale2"))
_CLIP: Final = Names("self_attn", "out_proj", ("layer_norm1", "layer_norm2"))


class _HfBackbone(Backbone):
    """What all networks of transformers have in common: they are made by a class and a configuration."""

    options: ClassVar[Mapping[str, Any]] = {}
    """What is set in the configuration besides what the card says."""
    library_prefixes: ClassVar[tuple[str, ...]] = (
        *("vit.", "deit.", "beit.", "dinov2.", "dinov2_with_registers.", "vision_model."),
        *("swin.", "convnext.", "resnet."),
    )
    may_pool: ClassVar[bool] = False
    """Whether the library makes such a network with a pooler or without one, as it is told."""

    def __init__(self, net: transformers.PreTrainedModel, image_size: int) -> None:
        super().__init__()
        self.net: Any = net
        self.image_size = image_size

    def load_library(self, state: dict[str, Tensor], source: str) -> None:
        """Take the weights of such a network, of one with a task's head, or of a whole CLIP or SigLIP."""
        pooler = {"add_pooling_layer": self.net.pooler is not None} if self.may_pool else {}
        with _silence_library():
            self.net, said = type(self.net).from_pretrained(
                None,
                config=self.net.config,
                state_dict=state,
                dtype=torch.float32,
                ignore_mismatched_sizes=True,
                output_loading_info=True,
                **pooler,
            )
        self.settle()
        _refuse_misfit(said, source)
        _refuse_left_over(said, self.net, state, source)
        _refuse_initial(self.net, state, source)

    def library_shapes(self) -> dict[str, tuple[int, ...]]:
        """By the names of its files, which are older than those of its modules."""
        written = revert_weight_conversion(self.net, self.net.state_dict())
        return {name: tuple(each.shape) for name, each in written.items()}

    def settle(self) -> None:
        """Get a new `net` ready."""


class HfViT(_HfBackbone):
    """ViT and what is built alike; every step is the library's own."""

    names: ClassVar[Names] = _VIT
    may_pool: ClassVar[bool] = True
    n_prefix = 1
    drop_registers = Backbone.drop_registers

    def __init__(self, net: transformers.PreTrainedModel, image_size: int) -> None:
        super().__init__(net, image_size)
        self.dim = net.config.hidden_size
        self.settle()

    @property
    def blocks(self) -> Sequence[nn.Module]:
        return list(self._list_layers())

    @property
    def tail(self) -> Sequence[nn.Module]:
        return [part for part in (self.net.layernorm, getattr(self.net, "pooler", None)) if part is not None]

    def parts(self, block: int) -> amb.BlockParts | None:
        """Views of a block with a two-layer MLP."""
        module, names = cast(Any, self.blocks[block]), self.names
        attention, mlp = getattr(module, names.attention), module.mlp
        maps = [getattr(attention, name) for name in ("q_proj", "k_proj", "v_proj", names.output)]
        ends = [getattr(mlp, name, None) for name in ("fc1", "fc2")]
        if not all(isinstance(each, nn.Linear) for each in (*maps, *ends)):
            return None
        query, key, value, output, up, down = (view_linear(each) for each in (*maps, *ends))
        first, second = (getattr(module, name) for name in names.norms)
        scales = [getattr(module, name).lambda1 for name in names.scales] if names.scales else [None, None]
        heads = len(query.weight) // attention.head_dim
        return amb.BlockParts(first, query, key, value, output, second, up, down, heads, (scales[0], scales[1]))

    def keep_blocks(self, kept: Sequence[int]) -> None:
        holder, name = self._find_holder()
        setattr(holder, name, nn.ModuleList(getattr(holder, name)[index] for index in kept))

    def resize(self, image_size: int) -> None:
        """Position embeddings are interpolated by the library, at each forward pass."""
        if image_size % self.net.config.patch_size:
            raise amb.CheckpointError(f"Images of {image_size} pixels cannot be cut into whole patches.")
        self.image_size = image_size

    def embed(self, images: Tensor) -> Tensor:
        return cast(Tensor, self.net.embeddings(images, interpolate_pos_encoding=self._is_resized()))

    def finish(self, tokens: Tensor) -> Tensor:
        return cast(Tensor, self.net.layernorm(tokens))

    def pool(self, tokens: Tensor) -> Tensor:
        """The library's pooler where the weights have one, else CLS."""
        return tokens[:, 0] if self.net.pooler is None else cast(Tensor, self.net.pooler(tokens))

    def _find_holder(self) -> tuple[Any, str]:
        """The module that holds the blocks, and under which name."""
        return self.net, "layers"

    def _list_layers(self) -> Any:
        holder, name = self._find_holder()
        return getattr(holder, name)

    def _is_resized(self) -> bool:
        return bool(self.image_size != self.net.config.image_size)


class HfDeiT(HfViT):
    """DeiT: a distillation token stands behind CLS, which is no register."""

    n_prefix = 2


class HfMae(HfViT):
    """The encoder of MAE, which sees every patch: nothing is masked, and noise in ascending order shuffles nothing."""

    may_pool: ClassVar[bool] = False
    options: ClassVar[Mapping[str, Any]] = {"mask_ratio": 0.0}

    def embed(self, images: Tensor) -> Tensor:
        n_patches = (self.image_size // self.net.config.patch_size) ** 2
        noise = torch.arange(n_patches, device=images.device).expand(len(images), -1)
        tokens, _, _ = self.net.embeddings(images, noise=noise, interpolate_pos_encoding=self._is_resized())
        return cast(Tensor, tokens)

    def pool(self, tokens: Tensor) -> Tensor:
        return tokens[:, 0]


class HfDino(HfViT):
    """DINOv2: the library interpolates its positions to any size."""

    may_pool: ClassVar[bool] = False
    names: ClassVar[Names] = _DINO

    def embed(self, images: Tensor) -> Tensor:
        return cast(Tensor, self.net.embeddings(images))

    def pool(self, tokens: Tensor) -> Tensor:
        return tokens[:, 0]

    def _find_holder(self) -> tuple[Any, str]:
        return self.net.encoder, "layer"


class HfDinoRegisters(HfDino):
    """DINOv2 with register tokens behind CLS."""

    def __init__(self, net: transformers.PreTrainedModel, image_size: int) -> None:
        super().__init__(net, image_size)
        self.n_prefix = 1 + net.config.num_register_tokens

    def drop_registers(self) -> None:
        """They have no position embeddings, so nothing else goes."""
        tokens = self.net.embeddings.register_tokens
        self.net.embeddings.register_tokens = nn.Parameter(tokens.data[:, :0].clone())
        self.n_prefix = 1


class _BeitArguments:
    """Hands a block what BEiT's own forward hands it: the size of the images, and a bias of the attention.

    An object and not a function, so that a deep copy of the backbone takes its own one along.
    """

    def __init__(self, backbone: HfBeit) -> None:
        self.backbone = backbone

    def __call__(self, block: nn.Module, args: Any, given: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        side, net = self.backbone.image_size, self.backbone.net
        window = (side // net.config.patch_size,) * 2
        bias = None if net.shared_position_bias is None else net.shared_position_bias(window)
        return args, {"resolution": (side, side), "attention_mask": bias, **given}


class HfBeit(HfViT):
    """BEiT: positions are a bias of the attention, each block's own or one for all."""

    def settle(self) -> None:
        beside = _BeitArguments(self)
        for layer in self._list_layers():
            layer.register_forward_pre_hook(beside, with_kwargs=True)

    def parts(self, block: int) -> amb.BlockParts | None:
        """Heads have biases of their own, so a block is more than its maps."""
        return None

    def embed(self, images: Tensor) -> Tensor:
        return cast(Tensor, self.net.embeddings(images))


class HfSiglip(HfViT):
    """The vision tower of SigLIP: no CLS, pooled by attention."""

    may_pool: ClassVar[bool] = False
    names: ClassVar[Names] = _CLIP
    n_prefix = 0

    @property
    def tail(self) -> Sequence[nn.Module]:
        return [self._find_tower().post_layernorm, *([self.net.head] if self.net.use_head else [])]

    def settle(self) -> None:
        """A block of the library wants its mask to be named, though there is none."""
        for layer in self._list_layers():
            layer.register_forward_pre_hook(_name_mask, with_kwargs=True)

    def finish(self, tokens: Tensor) -> Tensor:
        return cast(Tensor, self._find_tower().post_layernorm(tokens))

    def pool(self, tokens: Tensor) -> Tensor:
        return cast(Tensor, self.net.head(tokens)) if self.net.use_head else tokens.mean(dim=1)

    def embed(self, images: Tensor) -> Tensor:
        return cast(Tensor, self._find_tower().embeddings(images, interpolate_pos_encoding=self._is_resized()))

    def _find_tower(self) -> Any:
        return self.net

    def _find_holder(self) -> tuple[Any, str]:
        return self._find_tower().encoder, "layers"


class HfClip(HfSiglip):
    """The vision tower of CLIP with its projection; the library norms only what it has pooled."""

    n_prefix = 1

    @property
    def tail(self) -> Sequence[nn.Module]:
        return [self._find_tower().post_layernorm, self.net.visual_projection]

    def embed(self, images: Tensor) -> Tensor:
        return cast(Tensor, self._find_tower().pre_layrnorm(super().embed(images)))

    def finish(self, tokens: Tensor) -> Tensor:
        return tokens

    def pool(self, tokens: Tensor) -> Tensor:
        return cast(Tensor, self.net.visual_projection(self._find_tower().post_layernorm(tokens[:, 0])))

    def _find_tower(self) -> Any:
        return self.net.vision_model


class HfMap(_HfBackbone):
    """A network with a map of places, which are its patch tokens; it has no blocks to cut at."""

    n_prefix = 0

    def __init__(self, net: transformers.PreTrainedModel, image_size: int) -> None:
        super().__init__(net, image_size)
        config = net.config
        self.dim = config.hidden_sizes[-1] if hasattr(config, "hidden_sizes") else config.hidden_size

    @property
    def blocks(self) -> Sequence[nn.Module]:
        return []

    def embed(self, images: Tensor) -> Tensor:
        places = cast(Tensor, self.net(images).last_hidden_state)
        return places if places.ndim == 3 else places.flatten(2).transpose(1, 2)  # of (n, dim, height, width)

    def finish(self, tokens: Tensor) -> Tensor:
        return tokens

    def pool(self, tokens: Tensor) -> Tensor:
        return tokens.mean(dim=1)


class HfConvNext(HfMap):
    """ConvNeXt, which norms what it has pooled."""

    @property
    def tail(self) -> Sequence[nn.Module]:
        return [self.net.layernorm]

    def pool(self, tokens: Tensor) -> Tensor:
        return cast(Tensor, self.net.layernorm(tokens.mean(dim=1)))


class Family(NamedTuple):
    """How the networks of one `model_type` are made."""

    config: str
    network: str
    backbone: type[_HfBackbone]


_NOT_MISSED: Final = ("mask_token", "position_ids", "relative_position_index", "num_batches_tracked")
"""Nothing is masked, and what counts and what is made of sizes has no weights."""
FAMILIES: Final[Mapping[str, Family]] = {
    "vit": Family("ViTConfig", "ViTModel", HfViT),
    "deit": Family("DeiTConfig", "DeiTModel", HfDeiT),
    "beit": Family("BeitConfig", "BeitModel", HfBeit),
    "vit_mae": Family("ViTMAEConfig", "ViTMAEModel", HfMae),
    "dinov2": Family("Dinov2Config", "Dinov2Model", HfDino),
    "dinov2_with_registers": Family("Dinov2WithRegistersConfig", "Dinov2WithRegistersModel", HfDinoRegisters),
    "clip_vision_model": Family("CLIPVisionConfig", "CLIPVisionModelWithProjection", HfClip),
    "siglip_vision_model": Family("SiglipVisionConfig", "SiglipVisionModel", HfSiglip),
    "swin": Family("SwinConfig", "SwinModel", HfMap),
    "convnext": Family("ConvNextConfig", "ConvNextModel", HfConvNext),
    "resnet": Family("ResNetConfig", "ResNetModel", HfMap),
}
"""The closed list of what is loaded; classes are the library's own, never a repository's."""


def build(architecture: Mapping[str, Any]) -> amb.VisionModel:
    """An untrained network of an architecture that the loader has looked through."""
    family, config = FAMILIES[architecture["model_type"]], dict(architecture["config"])
    pooler = {"add_pooling_layer": bool(architecture.get("pooler"))} if family.backbone.may_pool else {}
    try:
        settings = getattr(transformers, family.config)(**config, **family.backbone.options)
        net = getattr(transformers, family.network)(settings, **pooler)
    except amb.AmbError:
        raise
    except Exception as error:  # noqa: BLE001 (the library's checks of a configuration raise classes of their own)
        reason = " ".join(str(error).split())
        raise amb.CheckpointError(
            f"transformers cannot build {architecture['model_type']} of {config}: {reason}."
        ) from None
    backbone = family.backbone(net.eval(), architecture["image_size"])
    backbone.mean, backbone.std = tuple(architecture["mean"]), tuple(architecture["std"])
    return amb.VisionModel("hf", {"loader": "hf", **architecture}, backbone)


def _name_mask(block: nn.Module, args: Any, given: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    return args, given if len(args) > 1 else {"attention_mask": None, **given}


def _refuse_misfit(said: Mapping[str, Any], source: str) -> None:
    """Raise CheckpointError where weights lack or differ; a mask token is not missed, for nothing is masked."""
    missing = sorted(name for name in said["missing_keys"] if not name.endswith(_NOT_MISSED))
    shapes = [
        f"{name}: file has {tuple(has)}, architecture has {tuple(wants)}"
        for name, has, wants in said["mismatched_keys"]
    ]
    wrong = [*sorted(shapes), *(f"{name}: file has nothing" for name in missing)]
    if wrong or said["error_msgs"]:
        first = "; ".join([*wrong, *said["error_msgs"]][:3])
        raise amb.CheckpointError(f"{source} does not fit its network in {len(wrong)} tensors. First: {first}.")


def _refuse_left_over(said: Mapping[str, Any], net: Any, state: Mapping[str, Tensor], source: str) -> None:
    """Raise CheckpointError where the file has more of this network than the architecture: blocks, biases.

    The library drops what it does not expect, also where features then differ. Text towers, decoders and classifiers
    stand beside the network, not in it.
    """
    start, inside = f"{net.base_model_prefix}.", {name for name, _ in net.named_children()}
    is_nested = any(name.startswith(start) for name in state)
    left = [name for name in said["unexpected_keys"] if name.startswith(start) or not is_nested]
    firsts = {name: {name.partition(".")[0], name.removeprefix(start).partition(".")[0]} for name in left}
    if wrong := sorted(name for name in left if firsts[name] & inside and not name.endswith(_NOT_MISSED)):
        raise amb.CheckpointError(
            f"{source} has {len(wrong)} tensors more of its network than the architecture. First: {wrong[0]}. "
            "Name the architecture that it was trained with."
        )


def _refuse_initial(net: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Raise CheckpointError where a tensor of the network is none of the file's: it kept the value it began with.

    The library may not say so, for some it does not miss; so each tensor is looked for, bit by bit.
    """
    of_shape: defaultdict[tuple[int, ...], list[Tensor]] = defaultdict(list)
    for tensor in state.values():
        of_shape[tuple(tensor.shape)].append(tensor)
    for name, wanted in net.state_dict().items():
        found = of_shape[tuple(wanted.shape)]
        place = next((n for n, tensor in enumerate(found) if _is_same(wanted, tensor)), None)
        if place is not None:
            del found[place]
        elif not name.endswith(_NOT_MISSED):
            raise amb.CheckpointError(
                f"{source} left {name} of its network at its initial value. Save it again with all its weights."
            )


def _is_same(wanted: Tensor, tensor: Tensor) -> bool:
    """Whether two tensors are equal bit by bit, so that NaN is equal to itself; a few numbers are looked at before all."""
    ours, theirs = wanted.flatten(), tensor.flatten()
    return all(_bits(ours[:n]).equal(_bits(theirs[:n])) for n in (16, None))


def _bits(numbers: Tensor) -> Tensor:
    return numbers.float().view(torch.int32)


@contextmanager
def _silence_library() -> Iterator[None]:
    """Without the library's progress bar and its table of weights that are not used: a text tower's, a head's."""
    level = logging.get_verbosity()
    had_bar = logging.is_progress_bar_enabled()
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if had_bar:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call]
