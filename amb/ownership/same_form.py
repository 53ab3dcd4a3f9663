"""Writing a changed model in the form in which it came: the same files, names, types and shards; only what changed differs.

Which element of a file becomes which weight is not guessed from names: the files' tensors are filled with their own
addresses and loaded as they always are, so every weight of the network says where it came from, whatever the library
renamed, joined or turned on the way.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from amb.api.types import CheckpointFiles
from amb.errors import CheckpointError, UsageError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from amb.api.vision import VisionModel

Load = Callable[[Mapping[str, "Tensor"]], "VisionModel"]
"""From tensors by their names in the files to the network, as its loader does it."""

_BASE: Final = 2**12
"""Addresses are loaded in two digits to this base, for fp32 counts no further than 2^24."""


class Origin(NamedTuple):
    """Where the elements of one weight lie in the files, each flat, in the weight's own order."""

    tensor: torch.Tensor  # number of the tensor in the files, 1 for the first
    element: torch.Tensor  # place in it


def write_model(before: VisionModel, after: VisionModel, files: CheckpointFiles, load: Load, folder: Path) -> list[str]:
    """Write `after` into a folder, in the form of the files that `before` came from; the names of what changed.

    Raises UsageError where a changed weight does not stand in the files as such, so that the form cannot be kept.
    """
    changes = _find_changes(before, after, files, load)
    for path in files.weights:
        _write_shard(path, changes, folder / path.name)
    for path in files.beside:
        shutil.copyfile(path, folder / path.name)
    return sorted(changes)


def _find_changes(
    before: VisionModel, after: VisionModel, files: CheckpointFiles, load: Load
) -> dict[str, list[tuple[Tensor, Tensor]]]:
    """For each tensor of the files that changes: places in it, and the new values there."""
    old, new = before.state_dict(), after.state_dict()
    moved = [name for name, weight in new.items() if not weight.equal(old[name])]
    if not moved:
        return {}
    names = [name for name, _ in _list_tensors(files)]
    origins = _trace_origins(files, load, moved)
    changes: dict[str, list[tuple[Tensor, Tensor]]] = {}
    for name in moved:
        origin, values = origins[name], new[name].detach().cpu().flatten()
        for number in sorted(set(origin.tensor.tolist())):
            rows = origin.tensor == number
            changes.setdefault(names[int(number) - 1], []).append((origin.element[rows], values[rows]))
    return changes


def _trace_origins(files: CheckpointFiles, load: Load, wanted: list[str]) -> dict[str, Origin]:
    """The origin of each wanted weight. Raises UsageError where a weight is made of several values."""
    import torch

    tensors = dict(_list_tensors(files))
    digits: list[Callable[[int, int], Tensor]] = [
        lambda number, size: torch.full((size,), float(number)),
        lambda _, size: (torch.arange(size) // _BASE).float(),
        lambda _, size: (torch.arange(size) % _BASE).float(),
    ]
    loaded = []
    for fill in digits:
        marked = {
            name: fill(number, shape.numel()).reshape(shape)
            for number, (name, shape) in enumerate(tensors.items(), start=1)
        }
        found = load(marked).state_dict()
        loaded.append({name: found[name].detach().float().cpu().flatten() for name in wanted})
    sizes = [shape.numel() for shape in tensors.values()]
    return {name: _read_origin(name, *(each[name] for each in loaded), sizes=sizes) for name in wanted}


def _read_origin(name: str, number: Tensor, high: Tensor, low: Tensor, *, sizes: list[int]) -> Origin:
    import torch

    element = high.long() * _BASE + low.long()
    whole = all(bool((part == part.round()).all()) for part in (number, high, low))
    if not whole or number.min() < 1 or number.max() > len(sizes):
        raise _refuse_form(name)
    if bool((element >= torch.tensor(sizes)[number.long() - 1]).any()) or element.min() < 0:
        raise _refuse_form(name)
    return Origin(number.long(), element)


def _refuse_form(name: str) -> UsageError:
    return UsageError(
        f"The mark changes {name}, which does not stand in the files as such, so they cannot be written in their own form. "
        "Save the model with its library, as plain weights, and protect that."
    )


def _list_tensors(files: CheckpointFiles) -> Iterator[tuple[str, torch.Size]]:
    """Names and shapes of the files' tensors, in order."""
    import torch
    from safetensors import safe_open

    for path in files.weights:
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 (not a mapping)
                yield name, torch.Size(file.get_slice(name).get_shape())


def _write_shard(path: Path, changes: Mapping[str, list[tuple[Tensor, Tensor]]], target: Path) -> None:
    """Write one file anew, what changed in its own type; one file is in memory at a time."""
    from safetensors import safe_open
    from safetensors.torch import save_file

    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
        header = file.metadata()
    for name in tensors.keys() & changes.keys():
        flat = tensors[name].clone().flatten()
        for places, values in changes[name]:
            flat[places] = values.to(flat.dtype)
        if not flat.isfinite().all():
            raise CheckpointError(f"{name} of {path.name} has no room for the mark in its type {flat.dtype}.")
        tensors[name] = flat.reshape(tensors[name].shape)
    save_file(tensors, target, header)
