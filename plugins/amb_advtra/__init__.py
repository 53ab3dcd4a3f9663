"""`advtra`: ADV-TRA, a fingerprint of classifiers by adversarial trajectories."""

from __future__ import annotations

import amb
from amb_advtra.method import AdvTra


@amb.hookimpl
def amb_register_methods() -> list[type[amb.Method]]:
    return [AdvTra]
