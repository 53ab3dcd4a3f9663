"""Black box by exchange: the images that a key asks about, as files among decoys, and the answers read back."""

from __future__ import annotations

import csv
import hashlib
import json
import zipfile
from collections.abc import Sequence
from pathlib import Path
from secrets import SystemRandom
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from amb.api.interfaces import Method
from amb.errors import MissingError, UsageError
from amb.ownership.answers import Answer, list_questions
from amb.ownership.files import read_bytes, write_new
from amb.ownership.key_facts import OpenedKey
from amb.ownership.reading import read_view

if TYPE_CHECKING:
    from torch import Tensor

LIST: Final = "questions.json"
_MOST_BYTES: Final = 2**31


def write_questions(opened: OpenedKey, method: Method, folder: Path, decoys: float = 0.25) -> int:
    """Write the images as PNG files, shuffled among mirrored ones that nobody will read; how many there are.

    Raises UsageError where the images are no bytes, so that a file of them would be others.
    """
    images = list_questions(lambda view: read_view(method, opened.key, view, None), method.access)
    if not images:
        raise UsageError(f"{method.name} asks a suspect no questions.")
    if any(not (255 * image).round().sub(255 * image).abs().max() < 1e-3 for image in images):
        raise UsageError(
            f"{method.name} asks about images that are no 8-bit ones, so files of them would ask something else."
        )
    random = SystemRandom()
    chosen = random.sample(range(len(images)), round(decoys * len(images)))
    asked = [*images, *(images[at].flip(-1) for at in chosen)]
    random.shuffle(asked)
    folder.mkdir(parents=True)
    names = [f"{number:05d}.png" for number in range(len(asked))]
    for name, image in zip(names, asked, strict=True):
        write_new(folder / name, _encode_png(image))
    note = {"format": "amb-questions/1", "images": names, "wanted": method.access, "size": list(images[0].shape[1:])}
    write_new(folder / LIST, (json.dumps(note, indent=1) + "\n").encode())
    return len(asked)


def read_answers(folder: Path, answers: Path) -> Answer:
    """A function that gives a question's answer from a file, whatever order they stand in. Raises AmbError."""
    rows = _read_rows(answers)
    known: dict[str, NDArray[np.float32]] = {}
    for name in _read_names(folder):
        if name not in rows:
            raise UsageError(f"{answers} has no answer to {name}. It needs a row for each image of {folder}.")
        known[_hash(_decode_png(read_bytes(folder / name, _MOST_BYTES, "The question")))] = rows[name]

    def answer(images: NDArray[np.float32]) -> NDArray[np.float32]:
        found = [known.get(_hash(image)) for image in images]
        if any(row is None for row in found):
            raise UsageError(
                f"The questions in {folder} are not those of this key. Give the key that they were written for."
            )
        return np.stack([row for row in found if row is not None])

    return answer


def _read_names(folder: Path) -> Sequence[str]:
    try:
        names = json.loads(read_bytes(folder / LIST, 2**24, "The list of questions"))["images"]
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{folder / LIST} is not what `amb verify ask` wrote ({error}).") from None
    if not isinstance(names, list) or not all(isinstance(name, str) and "/" not in name for name in names):
        raise UsageError(f"{folder / LIST} is not what `amb verify ask` wrote.")
    return names


def _read_rows(path: Path) -> dict[str, NDArray[np.float32]]:
    """Answers by file name: an npz with `names` and `features`, or a csv whose first column is the name."""
    try:
        names, values = _read_npz(path) if path.suffix == ".npz" else _read_csv(path)
    except FileNotFoundError:
        raise MissingError(f"The answers {path} do not exist. Give another path.") from None
    except (OSError, ValueError, KeyError, zipfile.BadZipFile, EOFError) as error:
        raise UsageError(
            f"{path} holds no answers ({error}). Write an npz with `names` (file names) and `features` (a row for each), "
            "or a csv with the file name first."
        ) from None
    if values.ndim != 2 or len(names) != len(values):
        raise UsageError(
            f"{path} has {len(names)} names and answers of the shape {values.shape}; there is a row for each name."
        )
    return dict(zip(names, values.astype(np.float32), strict=True))


def _read_npz(path: Path) -> tuple[list[str], NDArray[Any]]:
    with np.load(path, allow_pickle=False) as file:
        return [str(name) for name in file["names"]], np.asarray(file["features"], dtype=np.float64)


def _read_csv(path: Path) -> tuple[list[str], NDArray[Any]]:
    with path.open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.reader(file) if row]
    if rows and not rows[0][-1].lstrip("+-").replace(".", "", 1)[:1].isdigit():  # a heading
        rows = rows[1:]
    return [row[0] for row in rows], np.array([[float(value) for value in row[1:]] for row in rows])


def _encode_png(image: Tensor) -> bytes:
    from io import BytesIO

    from PIL import Image

    pixels = (255 * image).round().byte().permute(1, 2, 0).numpy()
    buffer = BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def _decode_png(data: bytes) -> NDArray[np.float32]:
    from io import BytesIO

    from PIL import Image

    with Image.open(BytesIO(data), formats=["PNG"]) as image:
        pixels = np.asarray(image.convert("RGB"))
    found: NDArray[np.float32] = (pixels.transpose(2, 0, 1) / np.float32(255)).astype(np.float32)
    return found


def _hash(image: NDArray[np.float32]) -> str:
    """Of an image's 8-bit values: what a file of it keeps."""
    return hashlib.sha256(np.round(255 * image).astype("u1").tobytes()).hexdigest()
