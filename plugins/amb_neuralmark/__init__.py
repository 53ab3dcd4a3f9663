"""NeuralMark 2025: a message that is the hash of its key and filters the weights that carry it."""

from __future__ import annotations

import amb
from amb_neuralmark.method import NeuralMark


@amb.hookimpl
def amb_register_methods() -> list[type[amb.Method]]:
    return [NeuralMark]
