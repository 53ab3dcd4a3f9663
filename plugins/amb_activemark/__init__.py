"""ActiveMark: a watermark of vision transformers, written at the block where massive activations begin."""

from __future__ import annotations

import amb
from amb_activemark.method import ActiveMark


@amb.hookimpl
def amb_register_methods() -> list[type[amb.Method]]:
    return [ActiveMark]
