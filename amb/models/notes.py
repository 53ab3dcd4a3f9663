"""What is worth knowing of a model that was loaded all the same: one line on standard error, once."""

from __future__ import annotations

import logging
from functools import cache

from amb.errors import printable


@cache
def say_once(text: str) -> None:
    """Say it, unless this process has: a run loads a model again and again."""
    logging.getLogger("amb.models").warning("note: %s", printable(text))
