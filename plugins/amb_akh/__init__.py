"""AKH: the cheapest fingerprint of classifiers, images that the owner's model gets wrong; and random images as its control."""

from __future__ import annotations

import amb
from amb_akh.method import AKH


@amb.hookimpl
def amb_register_methods() -> list[type[amb.Method]]:
    return [AKH]
