"""Weights without a card of amb: what network they are, by the configuration that their library wrote beside them.

Names and shapes alone never say it all: two networks of the same names and shapes may see images normalised in another
way, have other heads or another activation. So of these, candidates are named, and the question goes back.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import amb
from amb_models import catalogue, known

WEIGHTS: Final = ("model.safetensors", "open_clip_model.safetensors")
"""What the libraries call the weights in a folder of theirs."""
OPEN_CLIP_CONFIG: Final = "open_clip_config.json"
_FOR_TRAINING: Final = frozenset(
    ["patch_dropout", "timm_drop", "timm_drop_path", "timm_model_pretrained", "output_tokens", "attn_drop_rate"]
)
"""What open_clip's configurations say of towers, and what does nothing in evaluation."""
_UNUSED_ARGS: Final = frozenset(["num_classes", "drop_rate", "proj_drop_rate", "attn_drop_rate", "patch_drop_rate"])
_MOST_NAMED: Final = 6


def find_architecture(weights: Path) -> dict[str, Any] | None:
    """The architecture that a configuration beside weights describes; None where there is none. Raises CheckpointError."""
    config, ours = weights.with_name("config.json"), weights.with_name(OPEN_CLIP_CONFIG)
    if ours.exists() and (weights.name == WEIGHTS[1] or not config.exists()):
        return _read_open_clip(known.read_config(str(ours), ours))
    if weights.name != WEIGHTS[0] or not config.exists():
        return None
    settings = known.read_config(str(config), config)
    if "architecture" in settings and "model_type" not in settings:
        return _read_timm(settings)
    return known.architecture_of(str(weights.parent), config, weights.with_name("preprocessor_config.json"), weights)


def _read_timm(settings: Mapping[str, Any]) -> dict[str, Any]:
    """What timm writes for its own models; the tag is that of the weights which they began from."""
    trained = settings.get("pretrained_cfg", settings)
    name, args = str(settings["architecture"]), settings.get("model_args") or {}
    if not isinstance(trained, Mapping) or not isinstance(args, Mapping):
        raise amb.CheckpointError(f"The config.json of timm/{name[:80]} is not of timm's form. Fetch it again.")
    tagged = f"{name}.{trained.get('tag')}"
    unused = {*_UNUSED_ARGS, *(["in_chans"] if args.get("in_chans") == 3 else [])}
    options = {key: value for key, value in args.items() if key not in unused and value is not None}
    mean, std = known.colours(trained, known.HALVES)
    return {
        "loader": "timm",
        "name": tagged if tagged in catalogue.timm_names() else name,
        "options": options,
        "mean": list(mean),
        "std": list(std),
    }


def _read_open_clip(settings: Mapping[str, Any]) -> dict[str, Any]:
    """What open_clip writes for the hub; where it does not say `quick_gelu`, the library has none."""
    model, images = settings.get("model_cfg"), settings.get("preprocess_cfg")
    if not isinstance(model, Mapping) or not isinstance(model.get("vision_cfg"), Mapping):
        raise amb.CheckpointError(
            f"{OPEN_CLIP_CONFIG} is not of open_clip's form: it has no vision_cfg. Fetch it again."
        )
    vision = {
        key: value for key, value in model["vision_cfg"].items() if key not in _FOR_TRAINING and value is not None
    }
    mean, std = known.colours(images if isinstance(images, Mapping) else {}, known.OPENAI)
    quick = {"quick_gelu": model["quick_gelu"]} if "quick_gelu" in model else {}
    return {
        "loader": "open_clip",
        "embed_dim": model.get("embed_dim"),
        "vision": vision,
        **quick,
        "mean": list(mean),
        "std": list(std),
    }


# By names and shapes


def ask_which(shapes: Mapping[str, tuple[int, ...]]) -> str:
    """What weights look like, and which names of a library fit them, as the end of a message."""
    for entrance, describe in _ENTRANCES.items():
        for name in shapes:
            if re.search(rf"(^|\.){re.escape(entrance)}$", name) and len(shapes[name]) == 4:
                start = name.removesuffix(entrance)
                return describe(
                    {key.removeprefix(start): each for key, each in shapes.items() if key.startswith(start)}
                )
    return "Its names are of no network that amb knows."


def _describe_timm(shapes: Mapping[str, tuple[int, ...]]) -> str:
    width, _, patch, _ = shapes["patch_embed.proj.weight"]
    depth = _count_blocks(shapes, r"blocks\.(?:\d+\.)?(\d+)\.norm1\.")
    said = (
        f"By its names it is a vision transformer of timm: {depth} blocks of width {width}, patches of {patch} pixels."
    )
    return said + _name(_list_timm(shapes, width, patch), "timm", "[.<tag>]")


def _list_timm(shapes: Mapping[str, tuple[int, ...]], width: int, patch: int) -> list[str]:
    """Names of plain vision transformers of this size, each built without numbers and compared."""
    import timm

    size = {192: "tiny", 384: "small", 768: "base", 1024: "large", 1280: "huge", 1408: "giant", 1536: "giant"}.get(
        width
    )
    form = re.compile(rf"(vit|deit3?)_{size}(_distilled)?_patch{patch}(_\w+)?")
    return [name for name in timm.list_models() if size and form.fullmatch(name) and _fits_timm(name, shapes)]


def _fits_timm(name: str, shapes: Mapping[str, tuple[int, ...]]) -> bool:
    """Whether a network has all these names but a classifier's, and these shapes but for its grid of positions."""
    import timm
    import torch

    with torch.device("meta"):
        net = timm.create_model(name, num_classes=0)
    wanted = {key: _forget_grid(key, tuple(each.shape)) for key, each in net.state_dict().items()}
    found = {key: _forget_grid(key, each) for key, each in shapes.items()}
    return wanted.items() <= found.items() and all(key.startswith("head") for key in found.keys() - wanted.keys())


def _forget_grid(name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    return shape[-1:] if name == "pos_embed" else shape


def _describe_open_clip(shapes: Mapping[str, tuple[int, ...]]) -> str:
    width, _, patch, _ = shapes["conv1.weight"]
    depth = _count_blocks(shapes, r"transformer\.resblocks\.(\d+)\.")
    said = (
        f"By its names it is a vision tower of open_clip: {depth} blocks of width {width}, patches of {patch} pixels."
    )
    embed_dim = shapes.get("proj", (0, 0))[-1]
    fits = [name for name in sorted(catalogue.open_clip_names()) if _has_tower(name, (width, depth, patch, embed_dim))]
    return said + _name(fits, "open_clip", "/<tag>")


def _has_tower(name: str, sizes: tuple[int, int, int, int]) -> bool:
    settings = catalogue.open_clip_settings(name)
    tower = settings.get("vision_cfg", {})
    return (tower.get("width"), tower.get("layers"), tower.get("patch_size"), settings.get("embed_dim")) == sizes


def _describe_hf(shapes: Mapping[str, tuple[int, ...]]) -> str:
    return "By its names it is a model of transformers: put its config.json and preprocessor_config.json beside it."


_ENTRANCES: Final = {
    "patch_embed.proj.weight": _describe_timm,
    "conv1.weight": _describe_open_clip,
    "embeddings.patch_embeddings.projection.weight": _describe_hf,
    "embeddings.patch_embedding.weight": _describe_hf,
}
"""The weights that images enter by, as each library calls them."""


def _count_blocks(shapes: Mapping[str, tuple[int, ...]], form: str) -> int:
    found = {int(match[1]) for name in shapes if (match := re.match(form, name))}
    return len(found)


def _name(names: list[str], loader: str, ending: str) -> str:
    if not names:
        return f" No name of {loader} is known to fit."
    choice = f":as={loader}/{names[0]}{ending}"
    if len(names) == 1:
        return f" It fits {names[0]}: if it is that, say so by {choice}."
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    listed = f"{', '.join(names[:_MOST_NAMED])}{more}"
    return f" It fits {listed}, which normalise images or compute in different ways: say which by {choice}."
