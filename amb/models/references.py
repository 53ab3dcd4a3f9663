"""From a model reference such as `tiny/owner`, or a card's architecture, to a model: through the registered loaders."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

from amb.api.edits import write_edit
from amb.api.interfaces import Edit, ModelLoader
from amb.errors import AmbError, BadParamsError, CheckpointError, shortened
from amb.plugin.registry import Registry
from amb.runtime.paths import is_offline

if TYPE_CHECKING:
    from amb.api.vision import VisionModel

MOST_EDITS: Final = 64
"""Changes of structure on one card; a chain of attacks writes a few."""


def load_model(ref: str, registry: Registry) -> VisionModel:
    """The trained model that `ref` names. Raises UnknownNameError, CheckpointError, MissingError."""
    loader, rest = registry.loader(ref)
    model = loader.load(rest)
    model.ref = ref
    return model.eval()


def load_skeleton(ref: str, registry: Registry) -> VisionModel:
    """The network that `ref` names, perhaps untrained, without fetching anything. Raises as load_model does."""
    from amb.models.size_limits import limit_size, refuse_large_maps

    loader, rest = registry.loader(ref)
    with limit_size(ref):
        model = loader.skeleton(rest)
    refuse_large_maps(model, ref)
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
    loader, edits = _find_loader(architecture, registry), architecture.get("edits", [])
    if not isinstance(edits, list) or len(edits) > MOST_EDITS:
        raise CheckpointError(f"The edits of a card are a list of at most {MOST_EDITS}.")
    model = _build_bare(loader, {key: value for key, value in architecture.items() if key != "edits"})
    for written in edits:
        edit = _read_edit(written, registry)
        try:
            write_edit(model, edit)
        except AmbError:
            raise
        except Exception as error:  # noqa: BLE001 (an edit that another network was made for may break in any way)
            raise CheckpointError(
                f"The card's edit {edit.name} does not fit its network {model.ref}: {shortened(error)}."
            ) from None
    return model


def _find_loader(architecture: Mapping[str, Any], registry: Registry) -> ModelLoader:
    """The loader that an architecture names. Raises CheckpointError."""
    classes, name = registry.loaders.classes, architecture.get("loader")
    if not isinstance(name, str) or name not in classes:
        known = ", ".join(sorted(classes))
        raise CheckpointError(
            f"The card names the loader '{shortened(name)}', which is not installed. Installed: {known}."
        )
    return classes[name]()


def _build_bare(loader: ModelLoader, architecture: Mapping[str, Any]) -> VisionModel:
    """The network without edits. Raises AmbError, whatever a library makes of sizes that nobody has tried."""
    try:
        return loader.build(architecture)
    except AmbError:
        raise
    except Exception as error:  # noqa: BLE001 (ZeroDivisionError, KeyError, IndexError and OverflowError were seen)
        said = f"{type(error).__name__}: {shortened(error)}"
        text = f"The card's network cannot be built by the loader '{loader.name}' ({said})."
        raise CheckpointError(text) from None


def _read_edit(written: Any, registry: Registry) -> Edit:
    """An edit as a card has it; what is not a registered edit with valid parameters is refused."""
    edits = registry.edits
    try:
        name, params = written["name"], dict(written["parameters"])
        return edits.classes[name].create(params)
    except (KeyError, TypeError, ValueError, BadParamsError) as error:
        known = ", ".join(sorted(edits.classes)) or "none"
        raise CheckpointError(
            f"The card has an edit that cannot be replayed ({shortened(error)}). Installed edits: {known}."
        ) from None
