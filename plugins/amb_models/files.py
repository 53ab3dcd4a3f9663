"""The loader `file/<path>`: model files of one's own, and a library's files with a card or their own configuration."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Final, NamedTuple

import amb
from amb import PICKLE, CheckpointFiles, has_weights, list_files, read_shapes, refuse_unsound
from amb_models import recognise
from amb_models.loaders import HfLoader, OpenClipLoader, TimmLoader

INDEX: Final = ".safetensors.index.json"
_OPTION: Final = re.compile(r"(?P<path>.*):(?P<name>weights|as)=(?P<value>[^:]*)", re.DOTALL)
_LIBRARIES: Final = {loader.name: loader for loader in (TimmLoader, OpenClipLoader, HfLoader)}
_OTHER_FORMS: Final = frozenset([".bin", ".ckpt", ".h5", ".msgpack", ".onnx", ".pkl", ".pt", ".pth", ".safetensors"])
"""Endings of weights; what else lies in a library's folder belongs to a model."""


class _Place(NamedTuple):
    """What a reference says: where the files lie, and perhaps which weights in them and whose network they are."""

    stem: Path
    part: str = ""
    alike: str = ""

    @property
    def weights(self) -> Path:
        return self.stem.with_name(f"{self.stem.name}.safetensors")

    def has_card(self) -> bool:
        return not self.alike and self.stem.with_name(f"{self.stem.name}.json").exists()


class FileLoader(amb.ModelLoader):
    """A model of your own: `file/path/to/stem` with a card stem.json, or a folder or file as its library has written it.

    Where a file holds several sets of weights, such as a student's and a teacher's, `file/path/to/stem:weights=teacher`
    names one. `file/path/to/stem:as=timm/vit_base_patch16_224.mae` says what network weights without a card are.
    """

    name = "file"

    def load(self, rest: str) -> amb.VisionModel:
        """Load weights into their network; a pickle is refused, and so are weights that are no finite numbers."""
        place = _read_place(rest)
        if place.has_card():
            model = amb.load_checkpoint(place.stem, f"file/{rest}", amb.build_model, place.part)
            refuse_unsound(model, str(place.weights))
            return model
        from amb_models.weights import fill

        return fill(_make_network(place), place.weights, f"file/{rest}", place.part)

    def files(self, rest: str) -> CheckpointFiles | None:
        """Those of a library; None for amb's own form, and where weights are one of several sets or lie in two parts."""
        place = _read_place(rest)
        own = place.has_card() and amb.read_card(place.stem).weights == "amb"
        if own or place.part or any(name.endswith("_mask") for name in read_shapes(place.weights)):
            return None
        files = list_files(place.weights)
        beside = (
            [each for each in sorted(place.weights.parent.iterdir()) if _lies_beside(each)]
            if _has_config(place)
            else []
        )
        weights = tuple(each for each in files if each.suffix == ".safetensors")
        cards = [place.stem.with_name(f"{place.stem.name}.json")] if place.has_card() else []
        return CheckpointFiles(weights, tuple(dict.fromkeys([*files[len(weights) :], *cards, *beside])))

    def skeleton(self, rest: str) -> amb.VisionModel:
        """The network of the card or the configuration, without its weights."""
        place = _read_place(rest)
        if not place.has_card() and has_weights(place.weights):
            return _make_network(place)
        card = amb.read_card(place.stem)
        with amb.limit_to_file(place.weights) if has_weights(place.weights) else nullcontext():
            return amb.build_model(card.architecture)

    def build(self, architecture: Mapping[str, Any]) -> amb.VisionModel:
        """A file holds models of other loaders; it has no architectures of its own."""
        raise amb.CheckpointError("A card cannot name 'file' as its loader. Name the library that builds the model.")


def _make_network(place: _Place) -> amb.VisionModel:
    """The untrained network that weights without a card are for. Raises MissingError, CheckpointError, UnknownNameError."""
    if not has_weights(place.weights):
        amb.read_card(place.stem)  # says what is missing
    with amb.limit_to_file(place.weights):
        if place.alike:
            loader, _, name = place.alike.partition("/")
            if loader not in _LIBRARIES:
                raise amb.unknown_name(
                    "library", loader, _LIBRARIES, "write as=timm/<name>, open_clip/<name>/<tag> or hf/<name>"
                )
            return _LIBRARIES[loader]().skeleton(name)
        architecture = recognise.find_architecture(place.weights)
        if architecture is None:
            raise amb.MissingError(
                f"{place.stem}.json does not exist, a card that says what network the weights are. "
                f"{recognise.ask_which(read_shapes(place.weights))} See docs/models."
            )
        return amb.build_model(architecture)


def _has_config(place: _Place) -> bool:
    return not place.has_card() and not place.alike


def _lies_beside(path: Path) -> bool:
    return path.is_file() and path.suffix not in _OTHER_FORMS and not path.name.startswith(".")


def _read_place(rest: str) -> _Place:
    """A reference with its options taken off. Raises CheckpointError."""
    path, options = rest, dict[str, str]()
    while match := _OPTION.fullmatch(path):
        if not match["value"] or match["name"] in options:
            raise amb.CheckpointError(
                f"file/{rest[:200]} says {match['name']}= twice, or nothing behind it. Write file/<stem>:weights=<name>."
            )
        path, options[match["name"]] = match["path"], match["value"]
    return _Place(_find_stem(path), options.get("weights", ""), options.get("as", ""))


def _find_stem(rest: str) -> Path:
    try:
        path = Path(rest).expanduser()
        is_folder = path.is_dir()
        Path(f"{path}{INDEX}").exists()  # the longest name that is looked for
    except (OSError, RuntimeError, ValueError) as error:  # no such user, or a name that no file can have
        raise amb.CheckpointError(f"file/{rest[:200]} names no file ({error}). Write file/<stem>.") from None
    if path.suffix in {".pt", ".pth", ".bin", ".ckpt", ".pkl"}:
        raise amb.CheckpointError(f"{path} is a pickle by its ending: {PICKLE}")
    if is_folder:
        return _choose_in_folder(path)
    if path.name.endswith(INDEX):
        return path.with_name(path.name.removesuffix(INDEX))
    return path.with_suffix("") if path.suffix in {".safetensors", ".json"} else path


def _choose_in_folder(folder: Path) -> Path:
    """The weights of a folder that a library has written. Raises CheckpointError where there are none, or two."""
    found = [name for name in recognise.WEIGHTS if has_weights(folder / name)]
    if len(found) == 1 and any((folder / name).exists() for name in ("config.json", recognise.OPEN_CLIP_CONFIG)):
        return (folder / found[0]).with_suffix("")
    if len(found) > 1:
        both = " or ".join(f"file/{folder / name}" for name in found)
        raise amb.CheckpointError(f"{folder} holds the weights of two libraries. Say which are meant: {both}.")
    cards = [each for each in folder.glob("*.json") if each.with_suffix(".safetensors").exists()]
    if len(cards) == 1:
        return cards[0].with_suffix("")
    raise amb.CheckpointError(
        f"{folder} is a folder, and not of one model. Name a file in it without its ending, file/{folder}/model for model.safetensors with its "
        "card model.json, or a folder with config.json and model.safetensors as a library writes it."
    )
