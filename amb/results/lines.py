"""The lines of `results.jsonl`: a cell each, numbered, with a digest, so that what was changed, moved or lost is named."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from amb.errors import StoreError, printable
from amb.results.plain_json import parse_json
from amb.runtime.regular_files import open_file

NUMBER: Final = "line"
"""Key of a line beside those of its cell: its place in the file, from 1."""
DIGEST: Final = "line_digest"
"""Key of a line beside those of its cell: of the cell, the number and the run."""
LONGEST: Final = 2**24
"""Bytes of a line: a cell takes two thousand, and what is no results at all shall not fill the memory."""


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
    found: dict[int, dict[str, Any]] = {}
    damaged = set()
    for at, (line, is_whole) in enumerate(_read_text(path), 1):
        number, cell = parse_line(line, run)
        if cell is not None:
            found[number] = cell
        elif is_whole:
            damaged.add(at)
    missing = set(range(1, max(n, *found, 0) + 1 if found else n + 1)) - set(found)
    return Lines([found[number] for number in sorted(found)], sorted((damaged - set(found)) | missing))


def read_plain_lines(path: Path) -> Lines:
    """The cells of a file of schema 1, whose lines have no digest: what has not the form of a cell is damaged."""
    from pydantic import ValidationError

    from amb.results.schema import CellForm

    found = Lines([], [])
    for number, (line, is_whole) in enumerate(_read_text(path), 1):
        try:
            cell = parse_json(line)
            CellForm.model_validate(cell)
            found.cells.append(cell)
        except (ValueError, ValidationError):
            if is_whole:
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


def _read_text(path: Path) -> Iterator[tuple[str, bool]]:
    """Each line of a file, and whether its end was written. Raises StoreError."""
    try:
        with open_file(path) as file:
            while line := file.readline(LONGEST):
                yield line.decode(errors="replace"), line.endswith(b"\n")
    except FileNotFoundError:
        return
    except OSError as error:
        raise StoreError(f"{path} cannot be read ({error.strerror}). Run the same command again without it.") from None
