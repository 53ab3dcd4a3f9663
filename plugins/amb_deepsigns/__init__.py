"""DeepSigns: a watermark in the mean activations of classes, read through a secret projection."""

from __future__ import annotations

import amb
from amb_deepsigns.method import DeepSigns


@amb.hookimpl
def amb_register_methods() -> list[type[amb.Method]]:
    return [DeepSigns]
