"""From a model reference such as `tiny/owner`, or a card's architecture, to a model: through the registered loaders."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from amb.errors import CheckpointError
from amb.plugins import manager

if TYPE_CHECKING:
    from amb.vision import VisionModel


def load_ref(ref: str) -> VisionModel:
    """The trained model that `ref` names. Raises UnknownNameError, CheckpointError, MissingError."""
    loader, rest = manager().registry.loader(ref)
    model = loader.load(rest)
    model.ref = ref
    return model.eval()


def digest_ref(ref: str) -> str:
    """The digest of the model that `ref` names, without loading it where its loader knows it."""
    loader, rest = manager().registry.loader(ref)
    return loader.digest(rest)


def build_model(architecture: Mapping[str, Any]) -> VisionModel:
    """The untrained network of an architecture's JSON. Raises CheckpointError, UnknownNameError."""
    loaders = manager().registry.loaders
    name = architecture.get("loader")
    if name not in loaders.classes:
        known = ", ".join(sorted(loaders.classes))
        raise CheckpointError(f"The card names the loader '{name}', which is not installed. Installed: {known}.")
    return loaders.classes[name]().build(architecture)
