"""JSON of a stranger: how deep it is nested is counted before it is parsed, for a parser goes down with it."""

from __future__ import annotations

import json
import re
from itertools import accumulate
from pathlib import Path
from typing import Any, Final

from amb.runtime.regular_files import read_file

DEEPEST: Final = 64
"""Lists and objects inside one another; a configuration has five."""
_TOKENS: Final = re.compile(rb'"(?:[^"\\]|\\.)*+"|[\[{]|[\]}]', re.DOTALL)
_STEPS: Final = {b"[": 1, b"{": 1, b"]": -1, b"}": -1}


def parse_json(data: bytes) -> Any:
    """The value of a JSON text. Raises ValueError where it is none, or is nested too deep."""
    steps = (_STEPS.get(token.group(), 0) for token in _TOKENS.finditer(data))
    if any(depth > DEEPEST for depth in accumulate(steps)):
        raise ValueError(f"it is nested more than {DEEPEST} deep")
    return json.loads(data)


def parse_json_object(data: bytes) -> dict[str, Any]:
    """As `parse_json`; raises ValueError also where the value is no object."""
    value = parse_json(data)
    if not isinstance(value, dict):
        raise ValueError("it is no JSON object")  # noqa: TRY004 (like a text that is no JSON)
    return value


def read_json_object(path: Path, most: int) -> dict[str, Any]:
    """The object in a JSON file of at most `most` bytes. Raises OSError or ValueError."""
    return parse_json_object(read_file(path, most))
