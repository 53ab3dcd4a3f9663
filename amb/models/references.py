"""From a model reference such as `tiny/owner`, or a card's architecture, to a model: through the registered loaders."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from amb.api.edits import write_edit
from amb.api.interfaces import Edit
from amb.errors import BadParamsError, CheckpointError
from amb.plugin.registry import Registry
from amb.runtime.paths import is_offline

if TYPE_CHECKING:
    from amb.api.vision import VisionModel


def load_model(ref: str, registry: Registry) -> VisionModel:
    """The trained model that `ref` names. Raises UnknownNameError, CheckpointError, MissingError."""
    loader, rest = registry.loader(ref)
    model = loader.load(rest)
    model.ref = ref
    return model.eval()


def load_skeleton(ref: str, registry: Registry) -> VisionModel:
    """The network that `ref` names, perhaps untrained, without fetching anything. Raises as load_model does."""
    loader, rest = registry.loader(ref)
    model = loader.skeleton(rest)
    model.ref = ref
    return model.eval()


def find_digest(ref: str, registry: Registry) -> str:
    """The digest of the model that `ref` names, without loading it where its loader knows it."""
    loader, rest = registry.loader(ref)
    return loader.digest(rest)


def require_models(refs: Iterable[str], registry: Registry) -> None:
    """Raise where a model is unknown, or would have to be fetched and may not be: before a library is imported for it."""
    for ref in refs:
        loader, rest = registry.loader(ref)
        if is_offline() and not all(fetch.cached for fetch in loader.fetches(rest)):
            loader.load(rest)  # says what is missing, and what to do


def build_model(architecture: Mapping[str, Any], registry: Registry) -> VisionModel:
    """The untrained network of an architecture's JSON, its edits replayed. Raises CheckpointError, UnknownNameError."""
    loaders = registry.loaders
    name = architecture.get("loader")
    if name not in loaders.classes:
        known = ", ".join(sorted(loaders.classes))
        raise CheckpointError(f"The card names the loader '{name}', which is not installed. Installed: {known}.")
    bare = {key: value for key, value in architecture.items() if key != "edits"}
    model = loaders.classes[name]().build(bare)
    for written in architecture.get("edits", []):
        edit = _read_edit(written, registry)
        try:
            write_edit(model, edit)
        except (NotImplementedError, ValueError, RuntimeError, IndexError) as error:
            raise CheckpointError(
                f"The card's edit {edit.name} does not fit its network {model.ref}: {error}."
            ) from None
    return model


def _read_edit(written: Any, registry: Registry) -> Edit:
    """An edit as a card has it; what is not a registered edit with valid parameters is refused."""
    edits = registry.edits
    try:
        name, params = written["name"], dict(written["parameters"])
        return edits.classes[name].create(params)
    except (KeyError, TypeError, ValueError, BadParamsError) as error:
        known = ", ".join(sorted(edits.classes)) or "none"
        raise CheckpointError(
            f"The card has an edit that cannot be replayed ({error}). Installed edits: {known}."
        ) from None
