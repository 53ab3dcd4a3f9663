"""Changes of a network's structure, applied and written on the model's card."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from amb.api.interfaces import Edit
    from amb.api.vision import VisionModel


def edited(model: VisionModel, edit: Edit, ref: str | None = None) -> VisionModel:
    """A copy of the model, edited, whose card says so. Raises NotImplementedError where its network has no such form."""
    twin = model.copy(ref)
    write_edit(twin, edit)
    return twin


def write_edit(model: VisionModel, edit: Edit) -> None:
    """Edit the model in place and write the edit on its card."""
    edit.apply(model)
    written = {"name": edit.name, "parameters": edit.model_dump(mode="json")}
    model.architecture = {**model.architecture, "edits": [*model.architecture.get("edits", []), written]}
