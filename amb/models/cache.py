"""Models at hand: known by their digests, loaded when something has to be computed on them, few kept in memory."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from amb.models.references import build_model, digest_ref, load_ref

if TYPE_CHECKING:
    from amb.api.vision import VisionModel
    from amb.runtime.batch_size import Room
    from amb.runtime.compute import Compute

MODELS_KEPT: Final = 4
"""Models in memory at once; the one used longest ago makes room."""


@dataclass(frozen=True)
class Handle:
    """A model by its digest; loaded only when something has to be computed on it."""

    ref: str
    digest: str
    read: Callable[[], VisionModel]


class Shelf:
    """Loads models to where they compute, as they are asked to; all learn together how many images fit."""

    def __init__(self, compute: Compute, room: Room) -> None:
        self._compute, self._room = compute, room
        self._models: OrderedDict[str, VisionModel] = OrderedDict()

    def of_ref(self, ref: str) -> Handle:
        """The model that a reference names. Raises where it is missing or unknown."""
        return Handle(ref, digest_ref(ref), partial(load_ref, ref))

    def of_file(self, stem: Path, ref: str, digest: str) -> Handle:
        """A model file of the store."""
        from amb.models.checkpoint import load_model

        return Handle(ref, digest, partial(load_model, stem, ref, build_model))

    def load(self, handle: Handle) -> VisionModel:
        """The model itself, kept for the next step that wants it."""
        model = self._models.pop(handle.digest, None) or self._placed(handle.read())
        self._models[handle.digest] = model
        while len(self._models) > MODELS_KEPT:
            self._models.popitem(last=False)
        return model

    def _placed(self, model: VisionModel) -> VisionModel:
        model.room = self._room
        return self._compute.place(model)
