"""Model loaders: timm, open_clip and transformers with weights of the hub, and model files of one's own."""

from __future__ import annotations

import amb
from amb_models.files import FileLoader
from amb_models.loaders import HfLoader, OpenClipLoader, TimmLoader


@amb.hookimpl
def amb_register_models() -> list[type[amb.ModelLoader]]:
    return [TimmLoader, OpenClipLoader, HfLoader, FileLoader]
