"""Weights in one file, or in several shards with an index that says which tensor lies where, as the libraries save them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from amb.errors import CheckpointError, MissingError, shortened
from amb.models.notes import say_once
from amb.runtime.plain_json import read_json_object
from amb.runtime.regular_files import exists
from amb.runtime.safetensors_header import Header, read_header

LARGEST_INDEX: Final = 2**22
"""Bytes of an index; one of a thousand tensors has eighty thousand."""
_PLAIN_NAME: Final = re.compile(r"[\w-][\w.-]*\.safetensors", re.ASCII)


def find_index(path: Path) -> Path:
    """Where the index of a model's shards lies, beside where its only file would."""
    return path.with_name(f"{path.name}.index.json")


def has_weights(path: Path) -> bool:
    """Whether a model's file is there, or the index of its shards."""
    return exists(path) or exists(find_index(path))


def read_headers(path: Path) -> dict[Path, Header]:
    """The headers of a model's file or of its shards, by file, in order. Raises MissingError or CheckpointError.

    Each tensor lies in the shard that the index says, and in no other.
    """
    index = find_index(path)
    if not exists(index):
        _refuse_lost_index(path)
        return {path: read_header(path)}
    if exists(path):
        raise CheckpointError(
            f"{path} and {index.name} both say what the weights are. Keep the one that is meant, and move the other away."
        )
    places = _read_index(index)
    _say_strays(path, places)
    headers = {each: _read_shard(each, index) for each in sorted({index.with_name(file) for file in places.values()})}
    _refuse_other_places(index, places, headers)
    return headers


def read_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a model's tensors, by the headers of its file or its shards. Raises MissingError, CheckpointError."""
    return {name: shape for header in read_headers(path).values() for name, shape in header.shapes.items()}


def list_files(path: Path) -> list[Path]:
    """A model's file, or its shards and then their index. Raises MissingError or CheckpointError."""
    index = find_index(path)
    return [*read_headers(path), *([index] if exists(index) else [])]


def _read_index(index: Path) -> dict[str, str]:
    """The file of each tensor. Raises CheckpointError for what is no index, or leads out of its folder."""
    try:
        places = read_json_object(index, LARGEST_INDEX).get("weight_map")
    except (OSError, ValueError) as error:
        raise _refusal(index, shortened(getattr(error, "strerror", None) or error)) from None
    if not isinstance(places, dict) or not places:
        raise _refusal(index, "it has no weight_map")
    if wrong := [file for file in places.values() if not isinstance(file, str) or not _PLAIN_NAME.fullmatch(file)]:
        raise _refusal(index, f"'{shortened(wrong[0])}' is no name of a safetensors file beside it")
    return places


def _refusal(index: Path, reason: str) -> CheckpointError:
    return CheckpointError(f"{index} is not an index of shards ({reason}). Fetch it again.")


def _read_shard(path: Path, index: Path) -> Header:
    if not exists(path):
        raise MissingError(
            f"{path} does not exist, and {index.name} says that weights lie in it. Fetch this shard too."
        )
    return read_header(path)


def _refuse_other_places(index: Path, places: Mapping[str, str], headers: Mapping[Path, Header]) -> None:
    found = {(name, path.name) for path, header in headers.items() for name in header.shapes}
    if wrong := sorted(found ^ set(places.items())):
        name, file = wrong[0]
        where = "has it, and the index does not say so" if (name, file) in found else "does not have it"
        raise CheckpointError(
            f"{index} and its shards disagree about {len(wrong)} tensors. First: {name}: {file} {where}. "
            "Fetch all files of one version."
        )


def _refuse_lost_index(path: Path) -> None:
    if not exists(path) and (shards := _list_shards(path)):
        raise MissingError(
            f"{find_index(path)} does not exist, and {len(shards)} shards lie beside where it should be. Fetch it too."
        )


def _say_strays(path: Path, places: Mapping[str, str]) -> None:
    for stray in sorted({each.name for each in _list_shards(path)} - set(places.values())):
        say_once(f"{path.with_name(stray)} is left out: the index does not name it.")


def _list_shards(path: Path) -> list[Path]:
    form = re.compile(rf"{re.escape(path.stem)}-\d+-of-\d+\.safetensors")
    return [each for each in path.parent.glob("*.safetensors") if form.fullmatch(each.name)]
