"""The loaders `timm/…`, `open_clip/…` and `hf/…`: which references and cards they take, and where weights come from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import amb
from amb_models import catalogue, hub, known
from amb_models.sizes import refuse_sizes

if TYPE_CHECKING:
    from amb import Fetch

PLAIN_OPTIONS: Final = frozenset(
    [
        "img_size",
        "patch_size",
        "embed_dim",
        "depth",
        "num_heads",
        "mlp_ratio",
        "reg_tokens",
        "class_token",
        "global_pool",
        "init_values",
        "no_embed_class",
        "use_abs_pos_emb",
        "use_rel_pos_bias",
        "use_shared_rel_pos_bias",
        "window_size",
        "depths",
        "dims",
        "layers",
        "channels",
        "output_stride",
        "drop_path_rate",
    ]
)
"""timm's options that a card may set: sizes and switches, nothing that names a file or an address."""

TOWER: Final = frozenset(
    [
        "layers",
        "width",
        "head_width",
        "mlp_ratio",
        "patch_size",
        "image_size",
        "ls_init_value",
        "attentional_pool",
        "attn_pooler_queries",
        "attn_pooler_heads",
        "no_ln_pre",
        "final_ln_after_pool",
        "pool_type",
        "timm_model_name",
        "timm_pool",
        "timm_proj",
        "timm_proj_bias",
    ]
)
"""What a card may say of an open_clip tower; dropouts, which are for training alone, are left out."""

_ALL_OF_TIMM: Final = "`timm.list_models()` shows all"


class _HubLoader(amb.ModelLoader):
    """WeightsFile come from the hub, in safetensors; everything about them is found before a library is imported."""

    def hub_files(self, rest: str) -> hub.HubFiles:
        """Where the files lie. Raises UnknownNameError, CheckpointError, MissingError."""
        raise NotImplementedError

    def fetches(self, rest: str) -> Sequence[Fetch]:
        """The files of the hub, and whether they are here."""
        return hub.fetches(self.hub_files(rest))

    def load(self, rest: str) -> amb.VisionModel:
        """Load with trained weights, from the hub's cache or the hub."""
        paths = hub.fetch(self.hub_files(rest))
        from amb_models.weights import fill

        with amb.limit_to_file(paths[-1]):
            model = self.untrained(rest, paths)
        return fill(model, paths[-1], f"{self.name}/{rest}")

    def files(self, rest: str) -> amb.CheckpointFiles:
        """Those of the hub, in its cache or fetched; the weights are the last."""
        *beside, weights = hub.fetch(self.hub_files(rest))
        return amb.CheckpointFiles((weights,), tuple(beside))

    def skeleton(self, rest: str) -> amb.VisionModel:
        """The untrained network."""
        return self.untrained(rest, [])

    def untrained(self, rest: str, paths: Sequence[Path]) -> amb.VisionModel:
        """The network for the files of `hub_files`; without them, as the library itself describes it."""
        raise NotImplementedError


class TimmLoader(_HubLoader):
    """Image models of timm, such as `timm/vit_large_patch14_dinov2.lvd142m`; without a tag, its default weights."""

    name = "timm"

    def hub_files(self, rest: str) -> hub.HubFiles:
        architecture, _, tag = rest.partition(".")
        names = catalogue.timm_names()
        if not {rest, architecture} & names:
            raise amb.unknown_name("timm model", rest, names, _ALL_OF_TIMM)
        weights = catalogue.timm_weights(rest)
        tagged = [name for name in names if name.startswith(f"{architecture}.")]
        if weights is None and tag and tagged and rest not in tagged:
            raise amb.unknown_name("timm model", rest, tagged, f"`timm.list_models('{architecture}.*')` shows all")
        return _require_safetensors(f"timm/{rest}", weights or _ask_timm(rest))

    def untrained(self, rest: str, paths: Sequence[Path]) -> amb.VisionModel:
        from amb_models.timm_backbone import build

        _say_other_activation(rest)
        return build(rest, {})

    def build(self, architecture: Mapping[str, Any]) -> amb.VisionModel:
        """Build from `{"loader": "timm", "name": ..., "options": {...}, "image_size": ..., "mean", "std"}`."""
        name, options, size = architecture.get("name"), architecture.get("options", {}), architecture.get("image_size")
        extra = set(architecture) - {"loader", "name", "options", "image_size", "mean", "std"}
        if not isinstance(name, str) or not isinstance(options, Mapping) or not _is_size(size) or extra:
            raise amb.CheckpointError(
                "A timm architecture has a name, options and perhaps image_size, mean and std, nothing else."
            )
        known.refuse(f"The card of {name}", options, PLAIN_OPTIONS, known.TIMM_WORDS)
        refuse_sizes(f"The card of {name}", options)
        _say_other_activation(name)
        from amb_models.timm_backbone import build

        given = {"mean", "std"} & set(architecture)
        return build(name, options, size, known.colours(architecture, known.IMAGENET) if given else None)


class OpenClipLoader(_HubLoader):
    """Vision towers of open_clip, such as `open_clip/ViT-L-14/openai`, with their projection."""

    name = "open_clip"

    def hub_files(self, rest: str) -> hub.HubFiles:
        name, _, tag = rest.partition("/")
        if name not in catalogue.open_clip_names():
            listing = "`open_clip.list_models()` shows all"
            raise amb.unknown_name("open_clip model", name, catalogue.open_clip_names(), listing)
        tags = catalogue.open_clip_tags(name)
        if tag not in tags:
            raise amb.unknown_name(f"tag of open_clip/{name}", tag, tags, "`open_clip.list_pretrained()` shows all")
        return _require_safetensors(f"open_clip/{rest}", tags[tag])

    def untrained(self, rest: str, paths: Sequence[Path]) -> amb.VisionModel:
        self.hub_files(rest)
        name, _, tag = rest.partition("/")
        settings = catalogue.open_clip_settings(name)
        from amb_models.open_clip_backbone import build, find_colours

        quick = bool(settings.get("quick_gelu")) or catalogue.open_clip_tags(name)[tag].quick_gelu
        vision = {key: value for key, value in settings["vision_cfg"].items() if key in TOWER and value is not None}
        return build(settings["embed_dim"], vision, quick, *find_colours(name, tag))

    def build(self, architecture: Mapping[str, Any]) -> amb.VisionModel:
        """Build from `{"loader": "open_clip", "embed_dim": ..., "vision": {...}, "quick_gelu", "mean", "std"}`."""
        known.refuse_keys(self.name, architecture, {"embed_dim", "vision", "quick_gelu", "mean", "std"})
        embed_dim, vision = architecture.get("embed_dim"), architecture.get("vision")
        if not _is_size(embed_dim) or embed_dim is None or not isinstance(vision, Mapping):
            raise amb.CheckpointError("An open_clip architecture has an embed_dim and the sizes of its `vision` tower.")
        name = vision.get("timm_model_name")
        if name is not None and (not isinstance(name, str) or name not in catalogue.timm_names()):
            raise amb.unknown_name("timm model", str(name), catalogue.timm_names(), _ALL_OF_TIMM)
        plain = {key: value for key, value in vision.items() if key != "timm_model_name"}
        known.refuse("The card's open_clip tower", plain, TOWER, known.OPEN_CLIP_WORDS)
        refuse_sizes("The card's open_clip tower", plain)
        if "quick_gelu" not in architecture and not isinstance(vision.get("layers"), Sequence) and name is None:
            amb.say_once(
                "A card of open_clip does not say quick_gelu, so it is false. Weights of OpenAI, DFN and MetaCLIP were "
                "trained with it: they fit both by names and shapes, and features differ."
            )
        from amb_models.open_clip_backbone import build

        mean, std = known.colours(architecture, known.OPENAI)
        return build(embed_dim, vision, bool(architecture.get("quick_gelu")), mean, std)


class HfLoader(_HubLoader):
    """Vision models of transformers by their repository, such as `hf/facebook/dinov2-large[@<revision>]`."""

    name = "hf"

    def hub_files(self, rest: str) -> hub.HubFiles:
        return hub.hub_files(f"hf/{rest}", rest, known.HF_FILES)

    def untrained(self, rest: str, paths: Sequence[Path]) -> amb.VisionModel:
        """By the configuration in the files; for a skeleton of a known repository, by our own table."""
        if not paths and rest in known.REPOSITORIES:
            return self.build(known.REPOSITORIES[rest])
        files = paths or hub.fetch(self.hub_files(rest)._replace(files=known.HF_FILES[:2]))
        return self.build(known.architecture_of(f"hf/{rest}", *files))

    def build(self, architecture: Mapping[str, Any]) -> amb.VisionModel:
        """Build from `{"loader": "hf", "model_type", "config": {...}, "image_size", "pooler", "mean", "std"}`."""
        plain = known.hf_architecture(architecture)
        refuse_sizes(f"The card of a {plain['model_type']}", plain["config"])
        from amb_models.hf_backbone import build

        return build(plain)


def _say_other_activation(name: str) -> None:
    if quick := catalogue.find_quick_name(name):
        amb.say_once(
            f"timm/{name} has GELU, and its weights were trained with QuickGELU: they fit both, and features differ. "
            f"timm/{quick} has what they were trained with."
        )


def _require_safetensors(ref: str, weights: catalogue.WeightsFile | None) -> hub.HubFiles:
    if weights is None:
        raise amb.MissingError(f"{ref} has no trained weights. Name a tag that has some.")
    if weights.repo is None or not weights.file.endswith(".safetensors"):
        where = weights.url or f"{weights.repo}/{weights.file}"
        raise amb.MissingError(
            f"The weights of {ref} exist only as a pickle ({where}), which could run code when loaded. "
            "Convert it where you trust it, and load it as file/<path> (see docs/models)."
        )
    repo, _, revision = weights.repo.partition("@")
    return hub.HubFiles(ref, repo, [weights.file], revision or None)


def _ask_timm(name: str) -> catalogue.WeightsFile | None:
    """The few models that timm's text does not tell of, for it computes their names."""
    from amb_models.timm_backbone import hub_id

    found = hub_id(name)
    return catalogue.WeightsFile(found[0], catalogue.safe_name(found[1])) if found else None


def _is_size(value: Any) -> bool:
    return value is None or (isinstance(value, int) and not isinstance(value, bool) and 0 < value <= known.LARGEST)
