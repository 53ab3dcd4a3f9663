"""What is known of a key without opening it, in `about.json` beside it; and opening it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

from pydantic import Field, StringConstraints

from amb.api.records import Key
from amb.errors import MissingError
from amb.ownership.documents import MOST_BYTES, Digest, StrictModel, Text, parse_document
from amb.ownership.files import SECRET, read_bytes, write_new
from amb.ownership.key_folder import read_key_folder
from amb.runtime.scratch import open_scratch

ABOUT: Final = "about.json"


class KeyFacts(StrictModel):
    """What stands beside a key in the clear; nothing of it is secret."""

    method: Annotated[Text, StringConstraints(max_length=20_000)]
    """Canonical spec of the method."""
    unmarked: Text
    """Reference or path of the unmarked model, for methods that read a suspect against it."""
    unmarked_digest: Digest
    """Over its tensors."""
    level: float = Field(gt=0, lt=1)
    """False positive rate at which is claimed unless the verifier says otherwise."""

    def write(self, folder: Path) -> None:
        """Put it beside the key. Raises StoreError."""
        write_new(folder / ABOUT, (json.dumps(self.model_dump(), indent=1) + "\n").encode())


@dataclass(frozen=True)
class OpenedKey:
    """A key, with what its commitment is checked by."""

    key: Key
    facts: KeyFacts
    salt: bytes
    data: bytes
    """The bytes of its file, to which the commitment is."""


def open_key(folder: Path, ask: Callable[[], str]) -> OpenedKey:
    """The key of a folder that `amb protect` wrote; `ask` gives the passphrase where it is sealed. Raises AmbError."""
    forbid_core_dumps()
    if not folder.is_dir():
        raise MissingError(f"There is no key folder {folder}. Give the one that `amb protect` wrote: --key DIR/key.")
    facts = parse_document(
        read_bytes(folder / ABOUT, MOST_BYTES, "What is known of the key,"), KeyFacts, f"{folder / ABOUT}"
    )
    salt, data = read_key_folder(folder, ask)
    return OpenedKey(load_key(data), facts, salt, data)


def forbid_core_dumps() -> None:
    """A process that has a key open leaves no image of its memory behind."""
    try:
        import resource
    except ImportError:  # Windows
        return
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def load_key(data: bytes) -> Key:
    """The key in the bytes of its file. Raises StoreError where they are not of one."""
    with open_scratch() as scratch:  # the library's reader of headers takes files alone
        path = scratch / "key.safetensors"
        write_new(path, data, SECRET)
        return Key.load(path)
