"""Uchida et al. 2017: a message in the mean of one layer's filters, read through a secret projection."""

from __future__ import annotations

import amb
from amb_uchida.method import Uchida


@amb.hookimpl
def amb_register_methods() -> list[type[amb.Method]]:
    return [Uchida]
