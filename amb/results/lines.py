"""The lines of `results.jsonl`: a cell each, numbered, with a digest, so that what was changed, moved or lost is named."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from amb.errors import StoreError, printable
from amb.results.plain_json import parse_json
from amb.runtime.regular_files import read_file

NUMBER: Final = "line"
"""Key of a line beside those of its cell: its place in the file, from 1."""
DIGEST: Final = "line_digest"
"""Key of a line beside those of its cell: of the cell, the number and the run."""
LARGEST: Final = 2**30
"""Bytes of a file of results; ten thousand cells take twenty million."""


class Lines(NamedTuple):
    """What a file holds."""

    cells: list[dict[str, Any]]
    damaged: list[int]
    """Numbers of the lines that were changed, or are missing."""


def write_line(cell: Mapping[str, Any], run: str, number: int) -> str:
    """A cell as the line of that number in the file of a run."""
    from amb.api.digests import finite

    kept = finite(cell)
    return json.dumps({**kept, NUMBER: number, DIGEST: _digest_line(kept, run, number)}, allow_nan=False) + "\n"


def write_lines(cells: Iterable[Mapping[str, Any]], run: str) -> str:
    """The whole file of a run."""
    return "".join(write_line(cell, run, number) for number, cell in enumerate(cells, 1))


def read_lines(path: Path, run: str, n: int = 0) -> Lines:
    """The cells of a run's file in the order in which they were written. Raises StoreError.

    `n` is how many there have to be, 0 where the run was killed before it could say: then a line cut short at the end
    is left out without a word.
    """
    text = _read_text(path)
    lines = text.splitlines()
    is_cut = bool(lines) and not text.endswith("\n")
    found: dict[int, dict[str, Any]] = {}
    damaged = set()
    for at, line in enumerate(lines, 1):
        number, cell = parse_line(line, run)
        if cell is not None:
            found[number] = cell
        elif not (is_cut and at == len(lines)):
            damaged.add(at)
    missing = set(range(1, max(n, *found, 0) + 1 if found else n + 1)) - set(found)
    return Lines([found[number] for number in sorted(found)], sorted((damaged - set(found)) | missing))


def read_plain_lines(path: Path) -> Lines:
    """The cells of a file of schema 1, whose lines have no digest: what has not the form of a cell is damaged."""
    from pydantic import ValidationError

    from amb.results.schema import CellForm

    text = _read_text(path)
    found, lines = Lines([], []), text.splitlines()
    for number, line in enumerate(lines, 1):
        try:
            cell = parse_json(line)
            CellForm.model_validate(cell)
            found.cells.append(cell)
        except (ValueError, ValidationError):
            if number < len(lines) or text.endswith("\n"):
                found.damaged.append(number)
    return found


def parse_line(line: str, run: str) -> tuple[int, dict[str, Any] | None]:
    """Number and cell of a line; no cell where it is none, was changed, or is of another run."""
    try:
        cell = parse_json(line)
    except ValueError:
        return 0, None
    if not isinstance(cell, dict):
        return 0, None
    number, said = cell.pop(NUMBER, None), cell.pop(DIGEST, None)
    if not isinstance(number, int) or said != _digest_line(cell, run, number):
        return 0, None
    return number, cell


def describe_damage(damaged: list[int]) -> str:
    """`line 3`, or `lines 3, 4, 7`."""
    more = f" and {len(damaged) - 10} more" if len(damaged) > 10 else ""
    return f"line{'s' if len(damaged) > 1 else ''} {', '.join(map(str, damaged[:10]))}{more}"


def warn_of_damage(path: Path, damaged: list[int]) -> None:
    """Say on standard error which lines are left out, and what to do."""
    text = f"warning: {path}, {describe_damage(damaged)}: changed or lost since it was written, so left out. "
    advice = "Run the same command again: what is in the store is not computed anew."
    sys.stderr.write(printable(text + advice) + "\n")


def _digest_line(cell: Mapping[str, Any], run: str, number: int) -> str:
    from amb.api.digests import digest_of

    return digest_of([run, number, cell])


def _read_text(path: Path) -> str:
    try:
        return read_file(path, LARGEST).decode(errors="replace")
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise StoreError(
            f"{path} cannot be read ({error.strerror}). Delete it, and run the same command again."
        ) from None
