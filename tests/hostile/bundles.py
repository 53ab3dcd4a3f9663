"""Bundles that are none: made of a sound one, so that what is wrong with them is met, and not their digests."""

from __future__ import annotations

import io
import json
import struct
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Final

SOUND: Final = Path(__file__).parents[1] / "results/schema1/bundle.amb.zip"
Files = dict[str, bytes]


def bundle_inputs() -> Iterator[tuple[str, bytes, str]]:
    """A name, the file, and what its error says."""
    sound = _read_sound()
    array = next(iter(_read_arrays(sound)))
    for name, header in _HEADERS.items():
        yield f"npy {name}", _repack(sound, "errors.npz", _pack({array: _make_npy(header)})), "errors.npz"
    for name, data in _ARRAYS.items():
        yield f"npz {name}", _repack(sound, "errors.npz", data), ""
    for name, line in _LINES.items():
        yield f"line {name}", _repack(sound, "results.jsonl", line), "is refused"
    for name, data in _DOCUMENTS.items():
        yield f"run {name}", _repack(sound, "run.json", data), "run.json"
    for name, data in _MANIFESTS.items():
        yield f"manifest {name}", _pack(sound | {"manifest.json": data}), "is refused"
    for levels in (33, 900):
        yield f"report {levels} deep", _repack(sound, "results.jsonl", _deepen_cell(sound, levels)), "levels"
    for name, (data, says) in _list_zips(sound).items():
        yield f"zip {name}", data, says


def _deepen_cell(sound: Files, levels: int) -> bytes:
    first, *rest = sound[_find(sound, "results.jsonl")].splitlines()
    cell = json.loads(first)
    text = json.dumps({**cell, "report": {"a": "DEEP"}})
    return b"\n".join([text.replace('"DEEP"', "[" * levels + "]" * levels).encode(), *rest])


_HEADERS: Final = {
    "deep lists": "{'descr': '|u1', 'fortran_order': False, 'shape': " + "[" * 5000 + "]" * 5000 + ", }",
    "deep brackets": "(" * 9000,
    "booleans": "{'descr': '|u1', 'fortran_order': False, 'shape': (True, 8), }",
    "less": "{'descr': '|u1', 'fortran_order': False, 'shape': (-1, 8), }",
    "both less": "{'descr': '|u1', 'fortran_order': False, 'shape': (-1, -8), }",
    "zero": "{'descr': '|u1', 'fortran_order': False, 'shape': (0, 8), }",
    "large": "{'descr': '|u1', 'fortran_order': False, 'shape': (999999999, 999999999), }",
    "very large": "{'descr': '|u1', 'fortran_order': False, 'shape': (" + "9" * 5000 + ", 8), }",
    "other size": "{'descr': '|u1', 'fortran_order': False, 'shape': (3, 8), }",
    "one axis": "{'descr': '|u1', 'fortran_order': False, 'shape': (8,), }",
    "turned": "{'descr': '|u1', 'fortran_order': True, 'shape': (1, 8), }",
    "objects": "{'descr': '|O', 'fortran_order': False, 'shape': (1, 8), }",
    "records": "{'descr': [('a', '|u1')], 'fortran_order': False, 'shape': (1, 8), }",
    "code": "{'descr': __import__('os').system('id'), 'fortran_order': False, 'shape': (1, 8), }",
    "nothing": "",
    "not ASCII": "é" * 50,
}
_ARRAYS: Final = {
    "pickle": b"\x80\x04cos\nsystem\n(S'id'\ntR.",
    "empty": b"",
    "cut": b"PK\3\4",
    "end alone": b"PK\5\6" + b"\0" * 18,
    "end with a long list": b"PK\5\6" + struct.pack("<4H2LH", 0, 0, 1, 1, 2**32 - 1, 0, 0),
}
_LINES: Final = {
    "cells 100,000": b"{}\n" * 100_000,
    "values": b'{"a": [' + b"[]," * 9_000_000 + b"1]}",
    "long number": b"9" * 100_000,
    "null": b"null",
    "list": b"[]",
    "infinite": b'{"a": 1e999}',
    "surrogate": b'{"a": "\\ud800"}',
    "zero bytes": b"\0" * 1000,
    "deep": b"[" * 100_000,
}
_DOCUMENTS: Final = {
    "list": b"[]",
    "null": b"null",
    "deep": b'{"run":' * 50_000,
    "number": b"9" * 5000,
    "empty": b"",
    "no run": b'{"schema": 1, "run": null, "cells": []}',
    "cells a number": b'{"schema": 1, "run": {}, "cells": 3}',
}
_MANIFESTS: Final = {
    "empty": b"",
    "null": b"null",
    "list": b"[]",
    "deep": b"[" * 3000,
    "schema list": b'{"schema": []}',
    "schema mapping": b'{"schema": {}}',
    "runs list": b'{"schema": 2, "runs": []}',
    "long": b'{"schema": 2, "a": "' + b"x" * 100_000 + b'"}',
}


def _list_zips(sound: Files) -> dict[str, tuple[bytes, str]]:
    data = _pack(sound)
    lzma, bzip2 = _pack(sound, zipfile.ZIP_LZMA), _pack(sound, zipfile.ZIP_BZIP2)
    end = data.rindex(b"PK\5\6")
    listed = data.index(b"PK\1\2")
    return {
        "LZMA": (lzma, "packed in a way"),
        "LZMA damaged": (lzma[:100] + b"\xff" * 40 + lzma[140:], "packed in a way"),
        "bzip2": (bzip2, "packed in a way"),
        "of 900 MB": (data[: listed + 24] + struct.pack("<L", 900 * 2**20) + data[listed + 28 :], "unpacked it takes"),
        "encrypted": (data[: listed + 8] + b"\1" + data[listed + 9 :], "encrypted"),
        "without a list": (data[: end + 12] + b"\0" * 8 + data[end + 20 :], ""),
        "with a long list": (data[: end + 12] + b"\xff" * 4 + data[end + 16 :], "its list of files takes"),
        "with a long comment": (data + b"x" * 2**17, "no bundle"),
        "cut": (data[: len(data) // 2], "no bundle"),
        "with a second end": (data + data[end:], ""),
        "empty": (_pack({}), "no manifest.json"),
        "of nothing": (b"", "no bundle"),
        "gzip": (b"\x1f\x8b\x08\0\0\0\0\0", "no bundle"),
        "pickle": (b"\x80\x04cos\nsystem\n(S'id'\ntR.", "no bundle"),
        "100,000 files": (_pack({f"runs/a{n}/run.json": b"" for n in range(40_000)}), "files"),
    }


def _read_sound() -> Files:
    with zipfile.ZipFile(SOUND) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def _read_arrays(files: Files) -> list[str]:
    with zipfile.ZipFile(io.BytesIO(files[_find(files, "errors.npz")])) as archive:
        return archive.namelist()


def _find(files: Files, name: str) -> str:
    return next(each for each in files if each.endswith(name))


def _make_npy(header: str) -> bytes:
    text = header.encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + b"\0" * 8


def _pack(files: Files, how: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", how, compresslevel=1) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def _repack(sound: Files, ending: str, data: bytes) -> bytes:
    """The bundle with one file changed and honest digests of all files."""
    from hashlib import sha256

    name = _find(sound, ending)
    manifest = json.loads(sound["manifest.json"])
    manifest["files"][name] = {"sha256": sha256(data).hexdigest(), "bytes": len(data)}
    manifest.pop("digest")
    text = json.dumps(manifest, sort_keys=True, separators=(",", ":"))
    sealed = json.dumps({**manifest, "digest": sha256(text.encode()).hexdigest()}).encode()
    return _pack(sound | {name: data, "manifest.json": sealed})


def write_long_manifest(path: Path, megabytes: int) -> None:
    """A manifest of which nothing is wrong but its length."""
    with zipfile.ZipFile(path, "w") as archive, archive.open("manifest.json", "w") as file:
        file.write(b'{"schema": 2, "a": [')
        for _ in range(megabytes):
            file.write(b"[]," * (2**20 // 3))
        file.write(b"1]}")


LARGE: Final[dict[str, Callable[[Path], Any]]] = {
    f"manifest {size} MB": partial(write_long_manifest, megabytes=size) for size in (100, 300)
}
"""Too large to be sent: made where they are tried."""
