"""Results bundles: runs as JSON and npz in one zip, without keys, that anybody can verify and read like runs of one's own.

A bundle holds of each run its facts, its cells, and which symbols were wrong on each suspect; never what the symbols
were, because messages are part of the key. What is read is a stranger's: names, sizes, digests and figures are
checked before anything is written, and nothing is unpickled.
"""

from __future__ import annotations

import hashlib
import json
import re
import tempfile
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from amb.errors import AmbError, BadParamsError, StoreError
from amb.results.aggregate import judged
from amb.results.archive import MOST_BYTES, MOST_FILES, Budget, Refused, open_archive
from amb.results.collect import StoredRun, find_runs
from amb.results.lines import describe_damage, write_lines
from amb.results.plain_json import MOST_VALUES, count_values, parse_json
from amb.results.records import CellRecord, parse_cell
from amb.results.verify import Mismatch, check_cells
from amb.results.versions import READABLE, SCHEMA, list_readable
from amb.results.wrong_symbols import pack_errors, unpack_errors
from amb.runtime.regular_files import open_file
from amb.store.store import Store, open_store

if TYPE_CHECKING:
    from amb.results.wrong_symbols import Wrong

MOST_CELLS: Final = 20_000
"""Of one run; each is computed again when it is read."""
_ARRAY_HEADER: Final = 128
"""Bytes before an array in a npy file."""
_FILES: Final = ("run.json", "results.jsonl", "errors.npz")
_NAME: Final = re.compile(
    rf"manifest\.json|runs/([0-9A-Za-z][0-9A-Za-z_-]{{0,99}})/({'|'.join(map(re.escape, _FILES))})"
)
_TRACEBACK: Final = re.compile(r" \(traceback in .*\)$", re.DOTALL)
_OF_THE_RUN: Final = ("suite", "owner", "sweep", "run")
"""Keys that a run puts beside a cell's own."""


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
        contents = (json.dumps(document, indent=1, allow_nan=False).encode(), lines.encode(), pack_errors(self.errors))
        return dict(zip(_FILES, contents, strict=True))


def own_runs(
    output: Path, sweep: str | None = None, runs: Sequence[str] = (), store: str | None = None
) -> list[PublicRun]:
    """The runs of an output folder, fit to be shown. Raises what `collect` raises, StoreError where evidence is missing."""
    kept = open_store(store or output / "store")
    return [_make_public(output, run, kept) for run in find_runs(output, sweep, runs)]


def write_bundle(runs: Sequence[PublicRun], path: Path) -> str:
    """Write a bundle; its digest. The same runs always give the same digest. Raises StoreError."""
    from amb import __version__

    files = {f"runs/{run.id}/{name}": data for run in runs for name, data in run.files().items()}
    _check_readable(runs, files)
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
    budget = Budget()
    try:
        with open_file(path) as file, open_archive(file, budget) as archive:
            _check_names(archive)
            return _read_archive(archive, budget)
    except OSError as error:
        raise BadParamsError(f"The bundle {path} cannot be read: {error.strerror or error}. Give another.") from None
    except (Refused, Mismatch) as why:
        raise BadParamsError(f"The bundle {path} is refused: {why}. Ask for it to be exported again.") from None
    except (zipfile.BadZipFile, RuntimeError, NotImplementedError, EOFError, zlib.error) as error:
        raise BadParamsError(f"{path} is no bundle of results, or a damaged one ({error}). Export it again.") from None


def write_runs(runs: Sequence[PublicRun], output: Path) -> dict[str, bool]:
    """Put runs beside one's own: for each id whether it is new. Raises BadParamsError where another has an id.

    Nothing is written unless all can be.
    """
    from amb.runtime.writable import check_writable

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


def _check_readable(runs: Sequence[PublicRun], files: Mapping[str, bytes]) -> None:
    """Raise StoreError for what `read_bundle` would refuse for its size."""
    too_many = [run for run in runs if len(run.cells) > MOST_CELLS]
    if too_many:
        raise StoreError(
            f"Run {too_many[0].id} has {len(too_many[0].cells):,} cells; a bundle takes {MOST_CELLS:,} a run."
        )
    n_bytes = sum(map(len, files.values())) + _limit_manifest(len(files) + 1)
    n_bytes += sum(each.nbytes + _ARRAY_HEADER for run in runs for each in run.errors.values())
    n_values = sum(count_values(data) for name, data in files.items() if not name.endswith(".npz"))
    if len(files) >= MOST_FILES or n_bytes > MOST_BYTES or n_values > MOST_VALUES:
        raise StoreError(
            f"{len(runs):,} runs of {n_values:,} values and {n_bytes:,} bytes are too much for a bundle. "
            "Export some of them: --sweep or --run."
        )


# One's own runs


def _make_public(output: Path, stored: StoredRun, store: Store) -> PublicRun:
    if damaged := stored.read_lines().damaged:
        raise StoreError(
            f"Run {stored.id} in {output} is not exported: in its results.jsonl {describe_damage(damaged)} was changed or "
            "lost. Run the same command again and delete the folder, or export others: --run."
        )
    facts = {**stored.facts, "folder": f"runs/{stored.id}", "links": {}}
    run = PublicRun(stored.schema, facts, [_strip_cell(cell) for cell in stored.read_cells()], {})
    run = replace(run, errors=_load_errors(output, run, store))
    try:
        check_cells(run.records, run.errors)
    except Mismatch as why:
        raise StoreError(f"Run {run.id} in {output} cannot be exported: {why}. Run it again.") from None
    return run


def _strip_cell(cell: Mapping[str, Any]) -> dict[str, Any]:
    """Without what its run says, and without the path of a traceback on the machine that made it."""
    kept = {name: value for name, value in cell.items() if name not in _OF_THE_RUN}
    return {**kept, "reason": _TRACEBACK.sub("", kept["reason"])}


def _load_errors(output: Path, run: PublicRun, store: Store) -> dict[str, Wrong]:
    """From the store; for a run that was imported, from the file that came with it."""
    imported = output / "runs" / run.id / "errors.npz"
    if imported.exists():
        try:
            return unpack_errors(imported.read_bytes(), Budget())
        except (Refused, zipfile.BadZipFile) as why:
            raise StoreError(f"{imported} is damaged ({why}). Delete the run's folder and import it again.") from None
    wanted = {cell.digests["evidence"]: cell for cell in judged(run.records)}
    return {digest: _load_wrong(store, digest, cell) for digest, cell in sorted(wanted.items())}


def _load_wrong(store: Store, digest: str, cell: CellRecord) -> Wrong:
    """Which symbols were wrong. Raises StoreError where the store does not hold what a cell was judged on."""
    import numpy as np

    from amb.api.records import Evidence

    entry = store.open_entry("evidence", Path(digest).name)
    try:
        if entry is None:
            raise FileNotFoundError
        evidence = Evidence.load(entry.folder / "evidence.npz")
    except (OSError, ValueError, KeyError, zipfile.BadZipFile):
        raise StoreError(
            f"The evidence of {cell.name} is not in {store.location}, so nobody could check its rate. "
            "Run it again, or export other runs: --run."
        ) from None
    return np.asarray(evidence.expected != evidence.observed, dtype=np.uint8)


# Reading what a stranger made


def _check_names(archive: zipfile.ZipFile) -> None:
    """Only a bundle's own files, and not too many."""
    names = [(entry.orig_filename, entry.filename) for entry in archive.infolist()]
    if len(names) > MOST_FILES:
        raise Refused(f"it holds {len(names):,} files")
    for name, read_as in names:
        if not _NAME.fullmatch(name) or read_as != name:
            raise Refused(f"it holds {name!r:.120}, which is no file of a bundle")


def _read_archive(archive: zipfile.ZipFile, budget: Budget) -> list[PublicRun]:
    from amb.results.schema import Manifest

    if "manifest.json" not in archive.namelist():
        raise Refused("it has no manifest.json")
    size, n_files = archive.getinfo("manifest.json").file_size, len(archive.namelist())
    if size > _limit_manifest(n_files):
        raise Refused(f"its manifest.json takes {size:,} bytes, more than {n_files} files need")
    manifest = _parse_json(archive.read("manifest.json"), "manifest.json", budget)
    if not isinstance(manifest, dict) or manifest.get("schema") not in READABLE:
        raise Refused(f"it is not of schema {list_readable()}, which this version of amb reads")
    _validate_form(Manifest, manifest, "manifest.json")
    claimed = manifest.pop("digest")
    if claimed != _hash_bytes(_encode_canonical(manifest)):
        raise Refused("manifest.json was changed: its digest is another")
    _check_listed(archive, manifest["files"])
    wanted = {f"runs/{run}/{name}" for run in manifest["runs"] for name in _FILES}
    if wanted != set(manifest["files"]):
        raise Refused(f"its runs need {len(wanted)} files and it lists {len(manifest['files'])}")
    reader = _RunReader(archive, manifest["files"], budget)
    return [reader.read(run, about["digest"]) for run, about in manifest["runs"].items()]


def _limit_manifest(n_files: int) -> int:
    """Bytes that a manifest takes at most; it says some 400 of each file."""
    return 4096 + 1024 * n_files


def _check_listed(archive: zipfile.ZipFile, listed: Mapping[str, Any]) -> None:
    """Every file that the manifest lists is there, and no other."""
    there = set(archive.namelist()) - {"manifest.json"}
    for name in sorted(there ^ set(listed)):
        raise Refused(
            f"{name!r:.120} is {'not listed in' if name in there else 'missing, though listed in'} its manifest"
        )


@dataclass(frozen=True)
class _RunReader:
    """Reads the runs of an archive one after the other, so that the text of one is in memory."""

    archive: zipfile.ZipFile
    listed: Mapping[str, Mapping[str, Any]]
    budget: Budget

    def read(self, run: str, digest: str) -> PublicRun:
        """One run, all of it checked. Raises Refused, Mismatch."""
        facts_file, cells_file, errors_file = (f"runs/{run}/{name}" for name in _FILES)
        document, cells = self._read_document(facts_file), self._read_cells(cells_file)
        if document["run"]["id"] != run:
            raise Refused(f"{facts_file} is of another run")
        errors = unpack_errors(self._read_file(errors_file), self.budget)
        read = PublicRun(document["schema"], document["run"], cells, errors)
        if read.digest != digest:
            raise Refused(f"run {run} has another digest than the manifest says")
        check_cells(read.records, read.errors)
        return read

    def _read_file(self, name: str) -> bytes:
        """The bytes of a file that have the SHA-256 that the manifest says."""
        data, said = self.archive.read(name), self.listed[name]
        if _hash_bytes(data) != said["sha256"] or len(data) != said["bytes"]:
            raise Refused(f"{name} was changed: its SHA-256 is another than the manifest's")
        return data

    def _read_document(self, name: str) -> Any:
        from amb.results.schema import RunDocument

        document = _parse_json(self._read_file(name), name, self.budget)
        _validate_form(RunDocument, document, name)
        return document

    def _read_cells(self, name: str) -> list[Any]:
        from amb.results.schema import CellForm

        lines = self._read_file(name).splitlines()
        if len(lines) > MOST_CELLS:
            raise Refused(f"{name} holds {len(lines):,} cells, more than {MOST_CELLS:,}")
        cells = [_parse_json(line, name, self.budget) for line in lines]
        for number, cell in enumerate(cells, 1):
            _validate_form(CellForm, cell, f"{name}, line {number}")
        return cells


def _validate_form(model: Any, value: Any, where: str) -> None:
    from pydantic import ValidationError

    try:
        model.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        at = ".".join(map(str, first["loc"])) or "it"
        raise Refused(f"{where}: {at:.120}: {first['msg']}") from None


def _parse_json(data: bytes, where: str, budget: Budget) -> Any:
    """Plain JSON within the budget."""
    budget.take_values(data)
    try:
        return parse_json(data)
    except ValueError as error:
        raise Refused(f"{where} is not JSON ({error!s:.120})") from None


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
            (folder / "results.jsonl").write_text(write_lines(run.cells, run.id), encoding="utf-8")
        folder.rename(output / "runs" / run.id)


def _encode_canonical(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def _hash_bytes(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
