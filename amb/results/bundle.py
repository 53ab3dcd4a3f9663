"""Results bundles: runs as JSON and npz in one zip, without keys, that anybody can verify and read like runs of one's own.

A bundle holds of each run its facts, its cells, and which symbols were wrong on each suspect; never what the symbols
were, because messages are part of the key. What is read is a stranger's: names, sizes, digests and figures are
checked before anything is written, and nothing is unpickled.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import stat
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from amb.errors import AmbError, BadParamsError, StoreError
from amb.results.aggregate import judged
from amb.results.collect import StoredRun, find_runs
from amb.results.lines import MOST_DEEP, is_too_deep, write_line
from amb.results.records import CellRecord, parse_cell
from amb.results.verify import Mismatch, check_cells
from amb.results.versions import READABLE, SCHEMA, list_readable

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Wrong = NDArray[np.uint8]

MOST_BYTES: Final = 1 << 30
"""Unpacked size from which a bundle is refused."""
MOST_RUNS: Final = 10_000
_FILES: Final = ("run.json", "results.jsonl", "errors.npz")
_NAME: Final = re.compile(
    rf"manifest\.json|runs/([0-9A-Za-z][0-9A-Za-z_-]{{0,99}})/({'|'.join(map(re.escape, _FILES))})"
)
_ARRAY: Final = re.compile(r"([0-9a-f]{8,64})\.npy")
_TRACEBACK: Final = re.compile(r" \(traceback in .*\)$", re.DOTALL)
_OF_THE_RUN: Final = ("suite", "owner", "sweep", "run")
"""Keys that a run puts beside a cell's own."""


class _Refused(Exception):  # noqa: N818 (its text is the reason that the error for the user gives)
    """What is wrong with a bundle."""


@dataclass(frozen=True)
class PublicRun:
    """What of a run may be shown to anybody, as JSON of the schema in which it was written."""

    schema: int
    facts: Mapping[str, Any]
    cells: Sequence[Mapping[str, Any]]
    errors: Mapping[str, Wrong]
    """Which symbols were wrong, (trials, symbols) in 0 and 1, by the digest of the evidence."""

    @property
    def id(self) -> str:
        """Name of the run."""
        return str(self.facts["id"])

    @cached_property
    def records(self) -> list[CellRecord]:
        """The cells as values."""
        where = {"suite": self.facts["suite"], "owner": self.facts["owner"], "run": self.id}
        return [parse_cell({**cell, **where}) for cell in self.cells]

    @cached_property
    def digest(self) -> str:
        """SHA-256 of facts, cells and wrong symbols, whatever packed them."""
        arrays = {name: [list(each.shape), _hash_bytes(each.tobytes())] for name, each in self.errors.items()}
        return _hash_bytes(_encode_canonical([self.facts, self.cells, arrays]))

    def files(self) -> dict[str, bytes]:
        """Its files as they lie in a bundle and in an output folder."""
        document = {"schema": self.schema, "run": self.facts, "cells": self.cells}
        lines = "".join(json.dumps(cell, allow_nan=False) + "\n" for cell in self.cells)
        contents = (json.dumps(document, indent=1, allow_nan=False).encode(), lines.encode(), _pack_errors(self.errors))
        return dict(zip(_FILES, contents, strict=True))


def own_runs(output: Path, sweep: str | None = None, runs: Sequence[str] = ()) -> list[PublicRun]:
    """The runs of an output folder, fit to be shown. Raises what `collect` raises, StoreError where evidence is missing."""
    return [_make_public(output, run) for run in find_runs(output, sweep, runs)]


def write_bundle(runs: Sequence[PublicRun], path: Path) -> str:
    """Write a bundle; its digest. The same runs always give the same digest. Raises StoreError."""
    from amb import __version__

    files = {f"runs/{run.id}/{name}": data for run in runs for name, data in run.files().items()}
    manifest = {
        "schema": SCHEMA,
        "format": "amb-results",
        "amb": __version__,
        "runs": {run.id: {"digest": run.digest, "cells": len(run.cells)} for run in runs},
        "files": {name: {"sha256": _hash_bytes(data), "bytes": len(data)} for name, data in files.items()},
    }
    digest = _hash_bytes(_encode_canonical(manifest))
    text = json.dumps({**manifest, "digest": digest}, indent=1).encode()
    _write_zip({"manifest.json": text, **files}, path)
    return digest


def read_bundle(path: Path) -> list[PublicRun]:
    """The runs of a bundle, every digest verified and every rate computed again. Raises BadParamsError."""
    try:
        with zipfile.ZipFile(path) as archive:
            _check_names(archive)
            return _read_archive(archive)
    except OSError as error:
        raise BadParamsError(f"The bundle {path} cannot be read: {error.strerror or error}. Give another.") from None
    except (_Refused, Mismatch) as why:
        raise BadParamsError(f"The bundle {path} is refused: {why}. Ask for it to be exported again.") from None
    except (zipfile.BadZipFile, RuntimeError, NotImplementedError, EOFError, zlib.error) as error:
        raise BadParamsError(f"{path} is no bundle of results, or a damaged one ({error}). Export it again.") from None


def write_runs(runs: Sequence[PublicRun], output: Path) -> dict[str, bool]:
    """Put runs beside one's own: for each id whether it is new. Raises BadParamsError where another has an id.

    Nothing is written unless all can be.
    """
    from amb.execution.store import check_writable

    check_writable(output)
    new = {run.id: not _is_imported(run, output) for run in runs}
    try:
        (output / "runs").mkdir(parents=True, exist_ok=True)
        for run in runs:
            if new[run.id]:
                _write_run(run, output)
    except OSError as error:
        raise StoreError(
            f"The runs cannot be written to {output}: {error.strerror}. Free space, or give another --output-dir."
        ) from None
    return new


# One's own runs


def _make_public(output: Path, stored: StoredRun) -> PublicRun:
    facts = {**stored.facts, "folder": f"runs/{stored.id}", "links": {}}
    run = PublicRun(stored.schema, facts, [_strip_cell(cell) for cell in stored.read_cells()], {})
    run = replace(run, errors=_load_errors(output, run))
    try:
        check_cells(run.records, run.errors)
    except Mismatch as why:
        raise StoreError(f"Run {run.id} in {output} cannot be exported: {why}. Run it again.") from None
    return run


def _strip_cell(cell: Mapping[str, Any]) -> dict[str, Any]:
    """Without what its run says, and without the path of a traceback on the machine that made it."""
    kept = {name: value for name, value in cell.items() if name not in _OF_THE_RUN}
    return {**kept, "reason": _TRACEBACK.sub("", kept["reason"])}


def _load_errors(output: Path, run: PublicRun) -> dict[str, Wrong]:
    """From the store; for a run that was imported, from the file that came with it."""
    imported = output / "runs" / run.id / "errors.npz"
    if imported.exists():
        try:
            return _unpack_errors(imported.read_bytes())
        except (_Refused, zipfile.BadZipFile) as why:
            raise StoreError(f"{imported} is damaged ({why}). Delete the run's folder and import it again.") from None
    wanted = {cell.digests["evidence"]: cell for cell in judged(run.records)}
    return {digest: _load_wrong(output, digest, cell) for digest, cell in sorted(wanted.items())}


def _load_wrong(output: Path, digest: str, cell: CellRecord) -> Wrong:
    """Which symbols were wrong. Raises StoreError where the store does not hold what a cell was judged on."""
    import numpy as np

    from amb.api.records import Evidence

    path = output / "store" / "evidence" / Path(digest).name / "evidence.npz"
    try:
        evidence = Evidence.load(path)
    except (OSError, ValueError, KeyError, zipfile.BadZipFile):
        raise StoreError(
            f"The evidence of {cell.name} is not in {output / 'store'}, so nobody could check its rate. "
            "Run it again, or export other runs: --run."
        ) from None
    return np.asarray(evidence.expected != evidence.observed, dtype=np.uint8)


# Reading what a stranger made


def _check_names(archive: zipfile.ZipFile) -> None:
    """Only a bundle's own files, each once, none a link, and of a bearable size."""
    entries = archive.infolist()
    if len(entries) > MOST_RUNS * len(_FILES) + 1:
        raise _Refused(f"it holds {len(entries):,} files")
    seen: set[str] = set()
    for entry in entries:
        name = entry.orig_filename
        if not _NAME.fullmatch(name) or entry.filename != name:
            raise _Refused(f"it holds {name!r:.120}, which is no file of a bundle")
        if stat.S_IFMT(entry.external_attr >> 16) not in (0, stat.S_IFREG):
            raise _Refused(f"{name} is a link or a device")
        if name in seen:
            raise _Refused(f"{name} is in it twice")
        seen.add(name)
    _check_size(archive)


def _check_size(archive: zipfile.ZipFile) -> None:
    size = sum(entry.file_size for entry in archive.infolist())  # zipfile never unpacks more than an entry declares
    if size > MOST_BYTES:
        raise _Refused(f"unpacked it takes {size:,} bytes, more than {MOST_BYTES:,}")


def _read_archive(archive: zipfile.ZipFile) -> list[PublicRun]:
    from amb.results.schema import Manifest

    if "manifest.json" not in archive.namelist():
        raise _Refused("it has no manifest.json")
    manifest = _parse_json(archive.read("manifest.json"), "manifest.json")
    if not isinstance(manifest, dict) or manifest.get("schema") not in READABLE:
        raise _Refused(f"it is not of schema {list_readable()}, which this version of amb reads")
    _validate_form(Manifest, manifest, "manifest.json")
    claimed = manifest.pop("digest")
    if claimed != _hash_bytes(_encode_canonical(manifest)):
        raise _Refused("manifest.json was changed: its digest is another")
    files = _verify_files(archive, manifest["files"])
    wanted = {f"runs/{run}/{name}" for run in manifest["runs"] for name in _FILES}
    if wanted != set(files):
        raise _Refused(f"its runs need {len(wanted)} files and it lists {len(files)}")
    return [_read_run(run, files, about["digest"]) for run, about in manifest["runs"].items()]


def _verify_files(archive: zipfile.ZipFile, listed: Mapping[str, Mapping[str, Any]]) -> dict[str, bytes]:
    """Every file that the manifest lists, and no other, with the SHA-256 that it says."""
    there = set(archive.namelist()) - {"manifest.json"}
    for name in sorted(there ^ set(listed)):
        raise _Refused(
            f"{name!r:.120} is {'not listed in' if name in there else 'missing, though listed in'} its manifest"
        )
    files = {name: archive.read(name) for name in listed}
    for name, data in files.items():
        if _hash_bytes(data) != listed[name]["sha256"] or len(data) != listed[name]["bytes"]:
            raise _Refused(f"{name} was changed: its SHA-256 is another than the manifest's")
    return files


def _read_run(run: str, files: Mapping[str, bytes], digest: str) -> PublicRun:
    from amb.results.schema import CellForm, RunDocument

    facts_file, cells_file, errors_file = (f"runs/{run}/{name}" for name in _FILES)
    document = _parse_json(files[facts_file], facts_file)
    _validate_form(RunDocument, document, facts_file)
    cells = [_parse_json(line, cells_file) for line in files[cells_file].splitlines()]
    for number, cell in enumerate(cells, 1):
        _validate_form(CellForm, cell, f"{cells_file}, line {number}")
    if document["run"]["id"] != run:
        raise _Refused(f"{facts_file} is of another run")
    read = PublicRun(document["schema"], document["run"], cells, _unpack_errors(files[errors_file]))
    if read.digest != digest:
        raise _Refused(f"run {run} has another digest than the manifest says")
    check_cells(read.records, read.errors)
    return read


def _validate_form(model: Any, value: Any, where: str) -> None:
    from pydantic import ValidationError

    try:
        model.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        at = ".".join(map(str, first["loc"])) or "it"
        raise _Refused(f"{where}: {at:.120}: {first['msg']}") from None


def _parse_json(data: bytes, where: str) -> Any:
    """Plain JSON: no NaN, no infinity, no half of a character that could not be written again."""
    try:
        value = json.loads(data, parse_constant=partial(_refuse_constant, where))
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except (ValueError, RecursionError) as error:
        raise _Refused(f"{where} is not JSON ({error!s:.120})") from None
    if is_too_deep(value, data.decode(errors="replace")):
        raise _Refused(f"{where} is nested more than {MOST_DEEP} deep")
    return value


def _refuse_constant(where: str, name: str) -> None:
    raise _Refused(f"{where} holds {name}, which JSON does not have")


# Wrong symbols as npz


def _pack_errors(errors: Mapping[str, Wrong]) -> bytes:
    import numpy as np

    buffer = io.BytesIO()
    arrays: dict[str, Any] = dict(errors)
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def _unpack_errors(data: bytes) -> dict[str, Wrong]:
    """The arrays of an npz, read without numpy's loader, which would allocate whatever a header claims."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        _check_size(archive)
        return {digest: _parse_array(archive.read(name), name) for digest, name in _list_arrays(archive)}


def _list_arrays(archive: zipfile.ZipFile) -> Iterator[tuple[str, str]]:
    seen: set[str] = set()
    for name in archive.namelist():
        found = _ARRAY.fullmatch(name)
        if not found or name in seen:
            raise _Refused(f"errors.npz holds {name!r:.120}")
        seen.add(name)
        yield found[1], name


def _parse_array(data: bytes, name: str) -> Wrong:
    """One array of zeros and ones. Raises _Refused for any other type, objects that would be unpickled among them."""
    import numpy as np

    stream = io.BytesIO(data)
    try:
        version = np.lib.format.read_magic(stream)
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(stream)
        array = np.frombuffer(data, np.uint8, offset=stream.tell()).reshape(shape)
    except ValueError as error:
        raise _Refused(f"errors.npz, {name}: {error!s:.120}") from None
    if version != (1, 0) or dtype != np.uint8 or fortran or array.ndim != 2 or not array.size or array.max() > 1:
        raise _Refused(f"errors.npz, {name}: not a table of zeros and ones")
    return array


# Writing


def _write_zip(files: Mapping[str, bytes], path: Path) -> None:
    """The same bytes for the same files: entries have no date of their own."""
    try:
        with zipfile.ZipFile(path, "w") as archive:
            for name, data in files.items():
                archive.writestr(zipfile.ZipInfo(name), data, zipfile.ZIP_DEFLATED)
    except OSError as error:
        raise BadParamsError(f"The bundle cannot go to {path}: {error.strerror}. Give another file: -o.") from None


def _is_imported(run: PublicRun, output: Path) -> bool:
    """Whether the output folder has this very run. Raises BadParamsError where it has another of that id."""
    if not (output / "runs" / run.id).exists():
        return False
    try:
        digest = own_runs(output, runs=[run.id])[0].digest
    except AmbError as error:
        digest = f"none: {error}"
    if digest == run.digest:
        return True
    raise BadParamsError(
        f"Run {run.id} is in {output} already, with other results. Import into another folder: --output-dir."
    )


def _write_run(run: PublicRun, output: Path) -> None:
    """All of a run or nothing of it: the folder appears when it is whole."""
    with tempfile.TemporaryDirectory(prefix=".import-", dir=output) as draft:
        folder = Path(draft) / run.id
        folder.mkdir()
        for name, data in run.files().items():
            (folder / name).write_bytes(data)
        if run.schema >= 2:  # in a bundle the manifest has digests, in a folder each line has its own
            (folder / "results.jsonl").write_text("".join(map(write_line, run.cells)), encoding="utf-8")
        folder.rename(output / "runs" / run.id)


def _encode_canonical(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def _hash_bytes(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
