"""RandMark: a watermark of encoders, random messages in noisy trigger images that a decoder reads from embeddings."""

from __future__ import annotations

import amb
from amb_randmark.method import RandMark


@amb.hookimpl
def amb_register_methods() -> list[type[amb.Method]]:
    return [RandMark]
