"""Images in parquet files, as the Hugging Face hub keeps them: a column holds the bytes of image files."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import amb
from amb_suites.datasets import DataError, Item

try:
    from pyarrow import ArrowException
    from pyarrow import parquet as pq
except ImportError:
    raise amb.MissingDependencyError("Reading parquet files", "pyarrow") from None


@dataclass(frozen=True)
class Shards:
    """Reads rows of parquet files; each group of rows that a call needs is read once."""

    root: Path

    def read(self, names: Sequence[str]) -> list[bytes | OSError]:
        wanted: dict[str, list[tuple[int, str, int]]] = defaultdict(list)
        for place, name in enumerate(names):
            file, row, column = name.rsplit("#", 2)
            wanted[file].append((int(row), column, place))
        found: dict[int, bytes | OSError] = {}
        for file, cells in wanted.items():
            found |= _read_cells(self.root / file, cells)
        return [found[place] for place in range(len(names))]


def rows(root: Path, files: Sequence[Path], image: str, mask: str) -> Iterator[Item]:
    """Every row of the files; reads no image. Raises DataError where a column is missing."""
    for file in files:
        name = file.relative_to(root).as_posix()
        try:
            with pq.ParquetFile(file) as shard:
                columns, n = set(shard.schema_arrow.names), shard.metadata.num_rows
        except ArrowException as error:
            raise DataError(f"{file} is not a whole parquet file ({_join_lines(error)}). Fetch it again.") from None
        if missing := {image, mask} - columns:
            raise DataError(f"{file} has no column {', '.join(sorted(missing))}; it has {', '.join(sorted(columns))}.")
        yield from (Item(f"{name}#{row}#{image}", None, f"{name}#{row}#{mask}") for row in range(n))


def _read_cells(file: Path, cells: Sequence[tuple[int, str, int]]) -> dict[int, bytes | OSError]:
    """The bytes at (row, column) for each place that wants them."""
    found: dict[int, bytes | OSError] = {}
    try:
        with pq.ParquetFile(file) as shard:
            counts = [shard.metadata.row_group(group).num_rows for group in range(shard.num_row_groups)]
            for group, (start, n) in enumerate(zip(accumulate([0, *counts]), counts, strict=False)):
                inside = [(row - start, column, place) for row, column, place in cells if start <= row < start + n]
                if inside:
                    found |= _take_cells(
                        shard.read_row_group(group, columns=sorted({cell[1] for cell in inside})), inside
                    )
    except (ArrowException, OSError) as error:
        return {place: OSError(_join_lines(error)) for _, _, place in cells}
    return found


def _take_cells(table: Any, cells: Sequence[tuple[int, str, int]]) -> dict[int, bytes | OSError]:
    found: dict[int, bytes | OSError] = {}
    for row, column, place in cells:
        value = table.column(column)[row].as_py()
        data = value.get("bytes") if isinstance(value, dict) else value
        found[place] = data if isinstance(data, bytes) else OSError("the row holds no image")
    return found


def _join_lines(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
