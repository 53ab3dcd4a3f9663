"""Spread spectrum: watermarks whose carriers are drawn at random, so that every bit of an innocent model is a fair coin."""

from __future__ import annotations

from typing import Final

import amb
from amb_spread.features import SpreadFeatures
from amb_spread.weights import SpreadWeights

DOMAIN: Final = "amb-spread/1"
"""Of the streams of both methods' keys."""


@amb.hookimpl
def amb_register_methods() -> list[type[amb.Method]]:
    return [SpreadFeatures, SpreadWeights]
