"""Model loaders: timm's architectures, and model files of one's own."""

from __future__ import annotations

import amb
from amb_models.loaders import FileLoader, TimmLoader


@amb.hookimpl
def amb_register_models() -> list[type[amb.ModelLoader]]:
    return [TimmLoader, FileLoader]
