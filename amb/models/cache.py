"""Models at hand: known by their digests, loaded when something has to be computed on them, few kept in memory."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from amb.models.references import build_model, find_digest, load_model
from amb.plugin.registry import Registry

if TYPE_CHECKING:
    from amb.api.vision import VisionModel
    from amb.runtime.batch_size import BatchSizeLimiter
    from amb.runtime.compute import Compute

MODELS_KEPT: Final = 4
"""Models in memory at once, however large; of more the one used longest ago makes room."""
SMALL_MIB: Final = 1024
"""As long as all of them together are smaller than this, none has to."""
MOST_KEPT: Final = 128
"""However small: a model is more than its weights."""


@dataclass(frozen=True)
class ModelHandle:
    """A model by its digest; loaded only when something has to be computed on it."""

    ref: str
    digest: str
    read: Callable[[], VisionModel]


def _weigh(model: VisionModel) -> float:
    """MiB of its weights."""
    return sum(weight.numel() * weight.element_size() for weight in model.parameters()) / 2**20


class ModelCache:
    """Loads models to where they compute, as they are asked to; all learn together how many images fit."""

    def __init__(self, registry: Registry, compute: Compute, limiter: BatchSizeLimiter) -> None:
        self._registry, self._compute, self._limiter = registry, compute, limiter
        self._models: OrderedDict[str, tuple[VisionModel, float]] = OrderedDict()
        """With their MiB; what was used last is last."""
        self._mib = 0.0

    def of_ref(self, ref: str) -> ModelHandle:
        """The model that a reference names. Raises where it is missing or unknown."""
        return ModelHandle(ref, find_digest(ref, self._registry), partial(load_model, ref, self._registry))

    def of_file(self, stem: Path, ref: str, digest: str) -> ModelHandle:
        """A model file of the store."""
        from amb.models.checkpoint import load_checkpoint

        return ModelHandle(
            ref, digest, partial(load_checkpoint, stem, ref, partial(build_model, registry=self._registry))
        )

    def load(self, handle: ModelHandle) -> VisionModel:
        """The model itself, kept for the next step that wants it."""
        if handle.digest in self._models:
            self._models.move_to_end(handle.digest)
            return self._models[handle.digest][0]
        model = self._place_model(handle.read())
        self._models[handle.digest] = model, _weigh(model)
        self._mib += self._models[handle.digest][1]
        while len(self._models) > MOST_KEPT or (len(self._models) > MODELS_KEPT and self._mib > SMALL_MIB):
            self._mib -= self._models.popitem(last=False)[1][1]
        return model

    def _place_model(self, model: VisionModel) -> VisionModel:
        model.limiter = self._limiter
        return model.place(self._compute)
