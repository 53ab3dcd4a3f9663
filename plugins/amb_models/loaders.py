"""The loaders `timm/<name>` and `file/<stem>`: what they accept and what they refuse."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import amb

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
        "depths",
        "dims",
        "channels",
        "output_stride",
        "drop_path_rate",
    ]
)
"""Architecture options taken from a card: sizes and switches, nothing that names a file or an address."""


class TimmLoader(amb.ModelLoader):
    """Any image model of timm, such as `timm/vit_small_patch16_224.augreg_in21k`; weights come from the hub."""

    name = "timm"

    def load(self, rest: str) -> amb.VisionModel:
        """Load with trained weights; timm keeps them in its own cache."""
        from amb_models.timm_backbone import load_pretrained

        return load_pretrained(rest)

    def build(self, architecture: Mapping[str, Any]) -> amb.VisionModel:
        """Build from `{"loader": "timm", "name": ..., "options": {...}, "image_size": ...}`."""
        from amb_models.timm_backbone import build

        name, options, size = architecture.get("name"), architecture.get("options", {}), architecture.get("image_size")
        extra = set(architecture) - {"loader", "name", "options", "image_size"}
        if not isinstance(name, str) or not isinstance(options, Mapping) or not isinstance(size, int | None) or extra:
            raise amb.CheckpointError(
                "A timm architecture has a name, options and perhaps an image_size, nothing else."
            )
        if refused := sorted(key for key, value in options.items() if key not in PLAIN_OPTIONS or not _plain(value)):
            raise amb.CheckpointError(
                f"The card of {name} sets {', '.join(refused)}, which is not among the plain options: "
                f"{', '.join(sorted(PLAIN_OPTIONS))}."
            )
        return build(name, options, size)


class FileLoader(amb.ModelLoader):
    """A model file of your own, `file/path/to/stem`: stem.safetensors with its card stem.json beside it."""

    name = "file"

    def load(self, rest: str) -> amb.VisionModel:
        """Load both files; a pickle is refused."""
        return amb.load_model(_stem(rest), f"file/{rest}", amb.build_model)

    def build(self, architecture: Mapping[str, Any]) -> amb.VisionModel:
        """A file holds models of other loaders; it has no architectures of its own."""
        raise amb.CheckpointError("A card cannot name 'file' as its loader. Name the library that builds the model.")


def _stem(rest: str) -> Path:
    path = Path(rest).expanduser()
    if path.suffix in {".pt", ".pth", ".bin", ".ckpt", ".pkl"}:
        raise amb.CheckpointError(
            f"{path} is a pickle by its ending, which could run code when loaded: refused. "
            "Convert it where you trust it: safetensors.torch.save_file(torch.load(f, weights_only=True), out)."
        )
    return path.with_suffix("") if path.suffix in {".safetensors", ".json"} else path


def _plain(value: Any) -> bool:
    if isinstance(value, Sequence) and not isinstance(value, str):
        return all(_plain(item) for item in value)
    return isinstance(value, bool | int | float) or value in ("token", "avg", "")
