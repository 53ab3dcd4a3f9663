"""What a card or a repository may say of a network: closed lists of plain options, and the repositories of the paper."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import amb

LARGEST: Final = 65536
"""No size in a card is larger; a stranger's could ask for more memory than there is."""
LARGEST_CONFIG: Final = 2**20
"""Bytes of a config.json; with the names of 21,000 classes it has nine hundred thousand."""
TIMM_WORDS: Final = frozenset(["token", "avg", "map", ""])
OPEN_CLIP_WORDS: Final = frozenset(["tok", "avg", "none", "map", "token", "abs_attn", "rot_attn", "linear", "mlp", ""])
HF_WORDS: Final = frozenset(
    ["gelu", "gelu_new", "gelu_pytorch_tanh", "quick_gelu", "relu", "silu", "tanh", "bottleneck", "basic"]
)
HF_FILES: Final = ("config.json", "preprocessor_config.json", "model.safetensors")
HF_OPTIONS: Final = frozenset(
    [
        "hidden_size",
        "num_hidden_layers",
        "num_attention_heads",
        "intermediate_size",
        "mlp_ratio",
        "hidden_act",
        "layer_norm_eps",
        "image_size",
        "patch_size",
        "qkv_bias",
        "pooler_output_size",
        "pooler_act",
        "projection_dim",
        "layerscale_value",
        "layer_scale_init_value",
        "use_swiglu_ffn",
        "use_mask_token",
        "num_register_tokens",
        "use_absolute_position_embeddings",
        "use_relative_position_bias",
        "use_shared_relative_position_bias",
        "use_mean_pooling",
        "vision_use_head",
        "embed_dim",
        "depths",
        "num_heads",
        "window_size",
        "use_absolute_embeddings",
        "hidden_sizes",
        "num_stages",
        "embedding_size",
        "layer_type",
        "downsample_in_first_stage",
        "downsample_in_bottleneck",
        "drop_path_rate",
        "initializer_range",
    ]
)
"""Settings of transformers that a card may have, and that are taken from a repository's config.json."""
MODEL_TYPES: Final = frozenset(
    [
        "vit",
        "deit",
        "beit",
        "vit_mae",
        "dinov2",
        "dinov2_with_registers",
        "clip_vision_model",
        "siglip_vision_model",
        "swin",
        "convnext",
        "resnet",
    ]
)
_TOWERS: Final = {"clip": "clip_vision_model", "siglip": "siglip_vision_model"}
_ANY_SIZE: Final = ("dinov2", "dinov2_with_registers", "convnext", "resnet")
"""Types that take images of any size, so the processor's size counts and not that of the position embedding."""

Colours = tuple[Sequence[float], Sequence[float]]
IMAGENET: Final[Colours] = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
OPENAI: Final[Colours] = ([0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711])
HALVES: Final[Colours] = ([0.5, 0.5, 0.5], [0.5, 0.5, 0.5])


def refuse(whose: str, options: Mapping[str, Any], allowed: Collection[str], words: Collection[str]) -> None:
    """Raise CheckpointError where an option is not on the list, or is anything but plain."""
    if refused := sorted(
        str(key) for key, value in options.items() if key not in allowed or not is_plain(value, words)
    ):
        raise amb.CheckpointError(
            f"{whose} sets {', '.join(refused)}, which is not among the plain options: {', '.join(sorted(allowed))}."
        )


def refuse_keys(loader: str, architecture: Mapping[str, Any], allowed: Collection[str]) -> None:
    """Raise CheckpointError where an architecture says more than its loader reads."""
    if extra := sorted(set(architecture) - {"loader", *allowed}):
        raise amb.CheckpointError(
            f"An architecture of {loader} has {', '.join(sorted(allowed))}, and no {', '.join(extra)}."
        )


def is_plain(value: Any, words: Collection[str]) -> bool:
    """A number of sensible size, a switch, one of the words, or a list of these."""
    if isinstance(value, str):
        return value in words
    if isinstance(value, Sequence):
        return len(value) <= LARGEST and all(is_plain(item, words) for item in value)
    return isinstance(value, bool | int | float) and abs(value) <= LARGEST


def colours(architecture: Mapping[str, Any], otherwise: Colours) -> Colours:
    """Mean and std of an architecture, three numbers each."""
    pair = [architecture.get(key, value) for key, value in zip(("mean", "std"), otherwise, strict=True)]
    for numbers in pair:
        plain = isinstance(numbers, Sequence) and not isinstance(numbers, str) and len(numbers) == 3
        if not plain or not all(isinstance(each, int | float) and abs(each) < LARGEST for each in numbers):
            raise amb.CheckpointError(f"Mean and std of an architecture are three numbers each, not {numbers}.")
    if not all(pair[1]):
        raise amb.CheckpointError("The std of an architecture is divided by; none of its numbers may be 0.")
    return list(pair[0]), list(pair[1])


def hf_architecture(architecture: Mapping[str, Any]) -> dict[str, Any]:
    """The parts of an `hf` architecture, looked through. Raises CheckpointError."""
    refuse_keys("hf", architecture, {"model_type", "config", "image_size", "pooler", "mean", "std"})
    model_type, config, size = (architecture.get(key) for key in ("model_type", "config", "image_size"))
    if not isinstance(model_type, str) or not isinstance(config, Mapping) or not isinstance(size, int | None):
        raise amb.CheckpointError("An hf architecture has a model_type, a config and perhaps an image_size.")
    if model_type not in MODEL_TYPES:
        raise amb.unknown_name("model_type", model_type, MODEL_TYPES, "`docs/models` shows all")
    refuse(f"The card of a {model_type}", config, HF_OPTIONS, HF_WORDS)
    mean, std = colours(architecture, IMAGENET)
    size = size or config.get("image_size")
    if not isinstance(size, int) or not 0 < size <= LARGEST:
        raise amb.CheckpointError(f"The card of a {model_type} does not say for images of which size: image_size.")
    pooler = {"pooler": True} if architecture.get("pooler") else {}
    return {
        "model_type": model_type,
        "config": dict(config),
        "image_size": size,
        **pooler,
        "mean": mean,
        "std": std,
    }


def architecture_of(ref: str, config: Path, processor: Path, weights: Path | None = None) -> dict[str, Any]:
    """The architecture that a repository's files describe. Raises CheckpointError for what amb has no loader for."""
    settings = read_config(ref, config)
    processed = read_config(ref, processor) if processor.exists() else {}
    model_type = str(settings.get("model_type"))
    if model_type in _TOWERS:
        tower = settings.get("vision_config")
        settings = {**settings, **(tower if isinstance(tower, dict) else {})}
        settings["projection_dim"] = read_config(ref, config).get("projection_dim", 512)
        model_type = _TOWERS[model_type]
    if model_type == "clip_vision_model":
        _say_lost_activation(ref, settings)
    if model_type not in MODEL_TYPES:
        raise amb.CheckpointError(
            f"{ref} is of type '{model_type[:80]}', which amb does not load. It loads {', '.join(sorted(MODEL_TYPES))}."
        )
    mean, std = HALVES if processor.exists() else _take_usual_colours(ref, model_type)
    found = {
        "loader": "hf",
        "model_type": model_type,
        "config": _keep_plain_settings(ref, model_type, settings),
        "mean": processed.get("image_mean") or mean,
        "std": processed.get("image_std") or std,
    }
    if model_type in _ANY_SIZE and (size := _find_processed_size(processed)):
        found["image_size"] = size
    return {**found, **({"pooler": True} if weights and _has_pooler(weights) else {})}


def _keep_plain_settings(ref: str, model_type: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Those that are sizes, switches and known words. Left out, one would be another network with the same weights."""
    known = {key: value for key, value in settings.items() if key in HF_OPTIONS and value is not None}
    if model_type != "clip_vision_model":
        known.pop("projection_dim", None)
    for key, value in known.items():
        if not is_plain(value, HF_WORDS):
            said = str(value)[:80]
            raise amb.CheckpointError(f"config.json of {ref} sets {key} to {said}, which amb does not load.")
    return known


def _take_usual_colours(ref: str, model_type: str) -> Colours:
    """Those that the library's own processor of the type begins with; a model that is saved alone has no processor."""
    usual = {"clip_vision_model": OPENAI, **dict.fromkeys(("vit", "beit", "siglip_vision_model"), HALVES)}
    mean, std = usual.get(model_type, IMAGENET)
    amb.say_once(
        f"{ref} has no preprocessor_config.json, so images are normalised as is usual for {model_type}: mean {mean}, std {std}."
    )
    return mean, std


def _say_lost_activation(ref: str, settings: Mapping[str, Any]) -> None:
    """CLIP's weights fit either activation by names and shapes, so only who trained them tells which one it is."""
    activation = settings.get("hidden_act") or "quick_gelu"  # the library's own, where nothing is said
    if "openai/clip" in f"{ref} {settings.get('_name_or_path')}" and activation != "quick_gelu":
        amb.say_once(
            f"{ref}: config.json says {str(activation)[:40]}, and OpenAI trained these weights with quick_gelu. They fit "
            "both, and features differ: if the setting was lost on the way, put it back."
        )


def _find_processed_size(processed: Mapping[str, Any]) -> int | None:
    """The side of the images that the repository's processor makes."""
    for key in ("crop_size", "size"):
        size = processed.get(key) if key != "crop_size" or processed.get("do_center_crop", True) else None
        if isinstance(size, Mapping):
            size = size.get("height") or size.get("shortest_edge")
        if isinstance(size, int):
            return size
    return None


def _has_pooler(weights: Path) -> bool:
    """By the headers alone; what is wrong with them is said where the weights are read."""
    try:
        names = amb.read_shapes(weights)
    except amb.AmbError:
        return False
    return any(name.endswith(("pooler.dense.weight", "pooler.layernorm.weight")) for name in names)


def read_config(ref: str, path: Path) -> dict[str, Any]:
    """A configuration, its size and depth weighed before it is parsed. Raises CheckpointError."""
    try:
        return amb.read_json_object(path, LARGEST_CONFIG)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)[:200]
        raise amb.CheckpointError(f"{path.name} of {ref} cannot be read ({reason}). Fetch it again.") from None


def _describe_known(model_type: str, normalised: Colours, side: int, config: Mapping[str, Any]) -> dict[str, Any]:
    return {"model_type": model_type, "config": config, "image_size": side, "mean": normalised[0], "std": normalised[1]}


_BASE: Final = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "image_size": 224}
_LARGE: Final = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "image_size": 224}
_WIDE: Final = {**_LARGE, "intermediate_size": 4096}
_DINO: Final = {"patch_size": 14, "image_size": 518}
_BEIT: Final = {**_BASE, "use_relative_position_bias": True}

REPOSITORIES: Final[Mapping[str, Mapping[str, Any]]] = {
    "facebook/dinov2-base": _describe_known("dinov2", IMAGENET, 224, {**_BASE, **_DINO}),
    "facebook/dinov2-large": _describe_known("dinov2", IMAGENET, 224, {**_LARGE, **_DINO}),
    "facebook/dinov2-with-registers-base": _describe_known("dinov2_with_registers", IMAGENET, 224, {**_BASE, **_DINO}),
    "facebook/dinov2-with-registers-large": _describe_known(
        "dinov2_with_registers", IMAGENET, 224, {**_LARGE, **_DINO}
    ),
    "facebook/vit-mae-base": _describe_known("vit_mae", IMAGENET, 224, _BASE),
    "facebook/vit-mae-large": _describe_known("vit_mae", IMAGENET, 224, _WIDE),
    "google/siglip-base-patch16-224": _describe_known("siglip_vision_model", HALVES, 224, _BASE),
    "google/vit-base-patch16-224": _describe_known("vit", HALVES, 224, _BASE),
    "microsoft/beit-base-patch16-224": {**_describe_known("beit", HALVES, 224, _BEIT), "pooler": True},
    "microsoft/resnet-50": _describe_known("resnet", IMAGENET, 224, {}),
    "openai/clip-vit-large-patch14": _describe_known(
        "clip_vision_model", OPENAI, 224, {**_WIDE, "patch_size": 14, "projection_dim": 768}
    ),
}
"""Forms of well-known repositories, so that a plan can be made before they are fetched."""
