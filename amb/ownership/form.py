"""The form in which a model's files came, and how to write and read a changed model in it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from amb.api.types import CheckpointFiles
from amb.models.checkpoint import fill_by_library, load_checkpoint, read_weights, save_checkpoint
from amb.models.references import build_model
from amb.ownership.files import hash_file
from amb.ownership.same_form import write_model
from amb.plugin.registry import Registry

if TYPE_CHECKING:
    from torch import Tensor

    from amb.api.vision import VisionModel

_STEM: Final = "model"


@dataclass(frozen=True)
class Form:
    """The form of one model's files."""

    ref: str
    architecture: Mapping[str, Any]
    files: CheckpointFiles | None
    """As a library reads them; None for amb's own form, a card beside the weights."""
    registry: Registry

    def write(self, before: VisionModel, after: VisionModel, folder: Path) -> list[str]:
        """Write a changed model into a folder; the names of the tensors that changed."""
        if self.files is not None:
            return write_model(before, after, self.files, self._load, folder)
        save_checkpoint(after, folder / _STEM)
        old, new = before.state_dict(), after.state_dict()
        return sorted(name for name, weight in new.items() if not weight.equal(old[name]))

    def read(self, folder: Path) -> VisionModel:
        """The model of a folder that was written."""
        if self.files is None:
            return load_checkpoint(folder / _STEM, self.ref, partial(build_model, registry=self.registry))
        return self._load(_read_shards([folder / path.name for path in self.files.weights]))

    def digest_files(self) -> dict[str, str]:
        """SHA-256 of each file that the model came from."""
        return {} if self.files is None else digest_files([*self.files.weights, *self.files.beside])

    def _load(self, state: Mapping[str, Tensor]) -> VisionModel:
        """The network with the tensors of the files in place, as its loader puts them there."""
        model = build_model(self.architecture, self.registry)
        fill_by_library(model, dict(state), self.ref)
        model.ref = self.ref
        return model.eval()


def find_form(ref: str, model: VisionModel, registry: Registry) -> Form:
    """The form of the files that a reference names, and that `model` was loaded from."""
    loader, rest = registry.loader(ref)
    return Form(ref, model.architecture, loader.files(rest), registry)


def digest_files(paths: Iterable[Path]) -> dict[str, str]:
    """SHA-256 of files by their names."""
    return {path.name: hash_file(path) for path in sorted(paths)}


def _read_shards(paths: Sequence[Path]) -> dict[str, Tensor]:
    return {name: tensor for path in paths for name, tensor in read_weights(path).items()}
