"""The header of a safetensors file, read with bounds before a library is given the file."""

from __future__ import annotations

from math import prod
from pathlib import Path
from typing import Any, Final, NamedTuple

from amb.errors import CheckpointError, MissingError, shortened
from amb.runtime.plain_json import parse_json_object
from amb.runtime.regular_files import read_start

LARGEST: Final = 2**22
"""Bytes of a header; one of a thousand tensors has a hundred thousand."""
PICKLE: Final = (
    "loading one could run code, so it is refused. Convert it where you trust it: "
    "safetensors.torch.save_file(torch.load(f, weights_only=True), out)."
)
"""What is said of a pickle."""
_POINTER: Final = b"version https://git-lfs.github.com/spec/"


class Header(NamedTuple):
    """What a file holds, without its numbers."""

    shapes: dict[str, tuple[int, ...]]

    @property
    def n_weights(self) -> int:
        """Numbers in all tensors."""
        return sum(prod(shape) for shape in self.shapes.values())


def read_header(path: Path) -> Header:
    """The names and shapes of a file, whose tensors lie inside it. Raises MissingError or CheckpointError."""
    try:
        start, size = read_start(path, LARGEST + 8)
    except FileNotFoundError:
        raise MissingError(f"{path} does not exist. It should hold the weights that belong to its card.") from None
    except OSError as error:
        raise _refusal(path, error.strerror or str(error)) from None
    _refuse_other_forms(path, start, size)
    length = int.from_bytes(start[:8], "little")
    if size < 8 or length > size - 8:
        raise _refusal(path, "its header does not end inside it")
    if length > LARGEST:
        raise _refusal(path, f"its header has {length:,} bytes, and {LARGEST:,} are read")
    return Header(_read_shapes(path, start[8 : 8 + length], size - 8 - length))


def _refuse_other_forms(path: Path, start: bytes, size: int) -> None:
    """Raise CheckpointError for a pickle, which torch.save's zip is too, and for what Git LFS leaves in a file's place."""
    if start.startswith(_POINTER):
        raise CheckpointError(
            f"{path} is a Git LFS pointer of {size} bytes, not the weights that it points to. Run `git lfs pull` in its "
            "repository, or fetch the file itself."
        )
    is_pickle = start[:1] == b"\x80" and _read_last_byte(path, size) == b"."
    if start[:2] == b"PK" or is_pickle:
        raise CheckpointError(f"{path} is a pickle (a torch.save file): {PICKLE}")


def _read_last_byte(path: Path, size: int) -> bytes:
    with path.open("rb") as file:
        file.seek(size - 1)
        return file.read(1)


def _read_shapes(path: Path, text: bytes, room: int) -> dict[str, tuple[int, ...]]:
    try:
        header = parse_json_object(text)
        tensors = {name: facts for name, facts in header.items() if name != "__metadata__"}
        return {name: _read_shape(facts, room) for name, facts in tensors.items()}
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise _refusal(path, f"its header does not say where its tensors lie: {shortened(error)}") from None


def _read_shape(facts: Any, room: int) -> tuple[int, ...]:
    """The shape of one tensor, whose bytes lie inside the file. Raises ValueError, TypeError, KeyError."""
    shape, (begin, end) = tuple(facts["shape"]), facts["data_offsets"]
    if not all(type(n) is int and n >= 0 for n in (*shape, begin, end)) or not begin <= end <= room:
        raise ValueError(shape)
    if prod(shape) > 2 * (end - begin):  # the smallest type has half a byte
        raise ValueError(shape)
    return shape


def _refusal(path: Path, reason: str) -> CheckpointError:
    return CheckpointError(f"{path} is not a safetensors file, or is cut short ({reason}). Fetch it again.")
