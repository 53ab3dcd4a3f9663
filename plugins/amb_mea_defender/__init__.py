"""MEA-Defender: a watermark of classifiers on images that are half of one class and half of another."""

from __future__ import annotations

import amb
from amb_mea_defender.method import MEADefender


@amb.hookimpl
def amb_register_methods() -> list[type[amb.Method]]:
    return [MEADefender]
