"""Keeps a library's remark to its own developers off the user's terminal."""

from __future__ import annotations

import logging


def hush_torchao() -> None:
    """Torchao registers constants in a way that torch deprecates, and torch says so whenever it is imported."""
    logging.getLogger("torch.utils._pytree").setLevel(logging.ERROR)
