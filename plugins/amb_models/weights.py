"""From a safetensors file of the hub to a network that has its weights."""

from __future__ import annotations

from pathlib import Path

import amb
from amb import fill_by_library, read_weights, refuse_unsound


def fill(model: amb.VisionModel, path: Path, ref: str, part: str = "") -> amb.VisionModel:
    """Put a file's weights into the network. Raises CheckpointError where they do not fit or are no finite numbers."""
    named = f"{path.name} of {ref}"
    fill_by_library(model, read_weights(path), named, part)
    refuse_unsound(model, named)
    model.ref = ref
    return model.eval()
