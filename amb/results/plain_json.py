"""JSON from anybody: values are counted before they are made, levels after, so that nothing later meets too many."""

from __future__ import annotations

import json
from typing import Any, Final

MOST_LEVELS: Final = 32
"""Lists and mappings inside each other; a document has eight."""
MOST_VALUES: Final = 8_000_000
"""Values of what is read at once: 70,000 cells, and below a gigabyte however they are packed."""


def parse_json(data: bytes | str) -> Any:
    """Plain JSON: no NaN, no infinity, no half of a character, at most so many levels. Raises ValueError."""
    try:
        text = data if isinstance(data, str) else data.decode(json.detect_encoding(data), "surrogatepass")
        value = json.loads(text, parse_constant=_refuse_constant)
        if text.count("[") + text.count("{") > MOST_LEVELS and nests_deeper(value, MOST_LEVELS):
            raise ValueError(f"more than {MOST_LEVELS} levels")
        json.dumps(
            value, ensure_ascii=False, allow_nan=False
        ).encode()  # no number beyond a double, no half of a character
    except RecursionError as error:
        raise ValueError(str(error)) from None
    return value


def count_values(data: bytes) -> int:
    """How many values JSON holds at most, counted in its bytes: commas in texts count too."""
    return data.count(b",") + data.count(b"[") + data.count(b"{") + 1


def nests_deeper(value: Any, levels: int) -> bool:
    """Whether lists and mappings are nested in more levels than these."""
    inside = [value]
    for _ in range(levels + 1):
        inside = [item for each in inside for item in _list_items(each) if isinstance(item, list | dict)]
        if not inside:
            return False
    return True


def _list_items(value: Any) -> Any:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def _refuse_constant(name: str) -> None:
    raise ValueError(f"it holds {name}, which JSON does not have")
