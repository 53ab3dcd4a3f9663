"""The lines of `results.jsonl`: a cell each, with a digest, so that one that was changed is noticed and named."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from amb.errors import StoreError, printable

DIGEST: Final = "line_digest"
"""Key of a line beside those of its cell."""


MOST_DEEP: Final = 64
"""Levels of lists and objects in each other."""


class Lines(NamedTuple):
    """What a file holds."""

    cells: list[dict[str, Any]]
    damaged: list[int]
    """Numbers of the lines that were changed."""


def write_line(cell: Mapping[str, Any]) -> str:
    """A cell as a line."""
    from amb.api.component import digest_of, finite

    kept = finite(cell)
    return json.dumps({**kept, DIGEST: digest_of(kept)}, allow_nan=False) + "\n"


def read_lines(path: Path, *, with_digests: bool) -> Lines:
    """The cells of a file; a line cut short at the end is a killed run's, and left out. Raises StoreError.

    Before schema 2 lines had no digest.
    """
    try:
        text = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
    except OSError as error:
        raise StoreError(
            f"{path} cannot be read ({error.strerror}). Delete it, and run the same command again."
        ) from None
    found, lines = Lines([], []), text.splitlines()
    for number, line in enumerate(lines, 1):
        cell = parse_line(line, with_digest=with_digests)
        is_cut = number == len(lines) and not text.endswith("\n")
        if cell is not None:
            found.cells.append(cell)
        elif with_digests and not is_cut:
            found.damaged.append(number)
    return found


def parse_line(line: str, *, with_digest: bool) -> dict[str, Any] | None:
    """The cell of a line, or None where it is none, or was changed."""
    from amb.api.component import digest_of

    try:
        cell = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(cell, dict) or "status" not in cell or is_too_deep(cell, line):
        return None
    said = cell.pop(DIGEST, None)
    return cell if not with_digest or said == digest_of(cell) else None


def is_too_deep(value: Any, text: str) -> bool:
    """Whether lists and objects lie in each other deeper than any document of amb's, so that nobody could go through it."""
    if text.count("{") + text.count("[") <= MOST_DEEP:
        return False
    level = [value]
    for _ in range(MOST_DEEP):
        level = [item for each in level for item in _list_items(each)]
    return bool(level)


def _list_items(value: Any) -> Iterable[Any]:
    """What lies in a list or an object, if it is one."""
    return value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()


def warn_of_damage(path: Path, damaged: list[int]) -> None:
    """Say on standard error which lines are left out, and what to do."""
    lines = ", ".join(map(str, damaged[:10])) + (f" and {len(damaged) - 10} more" if len(damaged) > 10 else "")
    text = f"warning: {path}, line {lines}: changed since it was written, so left out. Run the same command again: it is read from the store."
    sys.stderr.write(printable(text) + "\n")
