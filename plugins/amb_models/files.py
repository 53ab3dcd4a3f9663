"""The loader `file/<path>`: model files of one's own, and files of a library with a card beside them."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Final

import amb
from amb import PICKLE, has_weights, refuse_unsound

INDEX: Final = ".safetensors.index.json"
PART: Final = ":weights="
"""Ahead of the name of one of several sets of weights in a file."""


class FileLoader(amb.ModelLoader):
    """A model file of your own, `file/path/to/stem`: stem.safetensors with its card stem.json beside it.

    Where a file holds several sets of weights, such as a student's and a teacher's, `file/path/to/stem:weights=teacher`
    names one.
    """

    name = "file"

    def load(self, rest: str) -> amb.VisionModel:
        """Load both files; a pickle is refused, and so are weights that are no finite numbers."""
        path, part = _take_off_part(rest)
        stem = _find_stem(path)
        model = amb.load_checkpoint(stem, f"file/{rest}", amb.build_model, part)
        refuse_unsound(model, f"{stem}.safetensors")
        return model

    def skeleton(self, rest: str) -> amb.VisionModel:
        """The network of the card, without its weights."""
        stem = _find_stem(_take_off_part(rest)[0])
        card, weights = amb.read_card(stem), Path(f"{stem}.safetensors")
        with amb.limit_to_file(weights) if has_weights(weights) else nullcontext():
            return amb.build_model(card.architecture)

    def build(self, architecture: Mapping[str, Any]) -> amb.VisionModel:
        """A file holds models of other loaders; it has no architectures of its own."""
        raise amb.CheckpointError("A card cannot name 'file' as its loader. Name the library that builds the model.")


def _take_off_part(rest: str) -> tuple[str, str]:
    """The path, and the set of weights that is asked for; nothing where all is meant."""
    path, mark, part = rest.rpartition(PART)
    if mark and not part:
        raise amb.CheckpointError(f"file/{rest[:200]} names no set of weights. Write file/<stem>{PART}<name>.")
    return (path, part) if mark else (rest, "")


def _find_stem(rest: str) -> Path:
    try:
        path = Path(rest).expanduser()
        is_folder = path.is_dir()
    except (OSError, RuntimeError, ValueError) as error:  # no such user, or a name that no file can have
        raise amb.CheckpointError(f"file/{rest[:200]} names no file ({error}). Write file/<stem>.") from None
    if path.suffix in {".pt", ".pth", ".bin", ".ckpt", ".pkl"}:
        raise amb.CheckpointError(f"{path} is a pickle by its ending: {PICKLE}")
    if is_folder:
        raise amb.CheckpointError(
            f"{path} is a folder. Name a file in it without its ending: file/{path}/model for model.safetensors "
            "with its card model.json."
        )
    if path.name.endswith(INDEX):
        return path.with_name(path.name.removesuffix(INDEX))
    return path.with_suffix("") if path.suffix in {".safetensors", ".json"} else path
