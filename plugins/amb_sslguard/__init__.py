"""SSLGuard: a watermark of encoders, written in how a stamped image is embedded and read by a decoder."""

from __future__ import annotations

import amb
from amb_sslguard.method import SSLGuard


@amb.hookimpl
def amb_register_methods() -> list[type[amb.Method]]:
    return [SSLGuard]
