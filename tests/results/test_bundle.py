"""Bundles: results go out and come back the same, hold no secret, and what was tampered with is refused in one line."""

from __future__ import annotations

import hashlib
import io
import json
import stat
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import binomtest

from amb.api.records import Evidence
from amb.errors import AmbError, BadParamsError, MissingError, StoreError
from amb.evaluation.verdict import Negative, decide
from amb.report.layouts import with_tables
from amb.results import archive as archives
from amb.results.bundle import own_runs, read_bundle, write_bundle, write_runs
from amb.results.collect import collect
from amb.results.lines import write_lines
from amb.results.verify import Mismatch, check_cells
from amb.store.entries import digest_files, write_record
from amb.testing.reporter import example_document
from tests.command import run_amb
from tests.conftest import run_toy
from tests.report.test_formats import HOSTILE, validator
from tests.report.test_leaderboard import facts

TRIALS, SYMBOLS = 16, 8


def make_store(output: Path, run: str = "20260101-000000-000000-abcdef", names: tuple[str, ...] = ("good",)) -> Path:
    """An output folder with one run: three negatives, then a positive suspect for each name. Evidence and verdicts are real."""
    drawn = np.random.default_rng(7)
    expected = drawn.integers(0, 2, (TRIALS, SYMBOLS))
    innocent = [Evidence(expected, drawn.integers(0, 2, expected.shape)) for _ in range(3)]
    marked = [Evidence(expected, np.where(drawn.random(expected.shape) < 0.1, 1 - expected, expected)) for _ in names]
    cells = []
    for at, each in enumerate([*innocent, *marked]):
        others = [other for other in innocent if other is not each]
        suspect = f"innocent {at}" if at < 3 else names[at - 3]
        cells.append(make_cell(output, suspect, "negative" if at < 3 else "positive", each, others))
    failed = example_document()["cells"][2]
    cells.append({**failed, "reason": "oh (traceback in /home/somebody/runs/x/tracebacks/001.txt)"})
    folder = output / "runs" / run
    folder.mkdir(parents=True)
    header = {**facts(run), "folder": "/home/somebody/runs", "links": {"mlflow": "https://me:secret@host"}}
    document = {"schema": 2, "run": header, "cells": cells}
    (folder / "run.json").write_text(json.dumps(document))
    (folder / "results.jsonl").write_text(write_lines(cells, run))
    return output


def make_cell(output: Path, suspect: str, kind: str, evidence: Evidence, others: list[Evidence]) -> dict[str, Any]:
    digest = hashlib.sha256(f"{suspect}{kind}".encode()).hexdigest()[:32]
    folder = output / "store" / "evidence" / digest
    folder.mkdir(parents=True)
    evidence.save(folder / "evidence.npz")
    (folder / "record.json").write_bytes(write_record({}, {}, digest_files(folder)))
    verdict = json.loads(
        json.dumps(decide(evidence, [Negative(each, str(at)) for at, each in enumerate(others)], 2, 0.05).__dict__)
    )
    template = example_document()["cells"][0]
    named = {"suspect": suspect, "kind": kind, "source": suspect, "group": kind, "digests": {"evidence": digest}}
    return {**template, **verdict, **named}


def repacked(path: Path, change: Callable[[dict[str, bytes]], None], *, honest: bool = True) -> Path:
    """The bundle with its files changed; an honest-looking one has its digests made anew."""
    with zipfile.ZipFile(path) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    change(files)
    if honest:
        files["manifest.json"] = manifest_of(files)
    other = path.with_name("other.zip")
    with zipfile.ZipFile(other, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return other


def manifest_of(files: dict[str, bytes]) -> bytes:
    """Digests by another way than the code's own: from the files as they lie there."""
    manifest = json.loads(files["manifest.json"])
    data = {name: each for name, each in files.items() if name != "manifest.json"}
    manifest["files"] = {
        name: {"sha256": hashlib.sha256(each).hexdigest(), "bytes": len(each)} for name, each in data.items()
    }
    for run in manifest["runs"]:
        document = json.loads(data[f"runs/{run}/run.json"])["run"]
        cells = [json.loads(line) for line in data[f"runs/{run}/results.jsonl"].splitlines()]
        try:
            with np.load(io.BytesIO(data[f"runs/{run}/errors.npz"])) as arrays:
                wrong = {n: [list(arrays[n].shape), hashlib.sha256(arrays[n].tobytes()).hexdigest()] for n in arrays}
        except ValueError:
            wrong = {}
        manifest["runs"][run]["digest"] = sha256([document, cells, wrong])
    manifest.pop("digest")
    return json.dumps({**manifest, "digest": sha256(manifest)}).encode()


def sha256(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """A bundle of one small run."""
    write_bundle(own_runs(make_store(tmp_path / "mine")), tmp_path / "x.zip")
    return tmp_path / "x.zip"


def file_of(files: dict[str, bytes], name: str) -> str:
    return next(each for each in files if each.endswith(name))


def edit_cell(number: int, **change: Any) -> Callable[[dict[str, bytes]], None]:
    def edit(files: dict[str, bytes]) -> None:
        name = file_of(files, "results.jsonl")
        lines = files[name].splitlines()
        lines[number] = json.dumps({**json.loads(lines[number]), **change}).encode()
        files[name] = b"\n".join(lines) + b"\n"

    return edit


# There and back


def test_what_comes_back_reads_like_ones_own(made: Path, tmp_path: Path) -> None:
    write_runs(read_bundle(made), tmp_path / "theirs")
    mine, theirs = collect(tmp_path / "mine"), collect(tmp_path / "theirs")
    assert [{**cell, "reason": "oh" if cell["reason"] else ""} for cell in mine["cells"]] == theirs["cells"]
    for layout in ("summary", "robustness", "negatives", "cells"):
        assert with_tables(theirs, layout)["tables"][0]["rows"]
    assert with_tables(mine, "summary")["tables"][0]["rows"] == with_tables(theirs, "summary")["tables"][0]["rows"]


def test_the_same_runs_make_the_same_bytes_also_when_they_were_imported(made: Path, tmp_path: Path) -> None:
    write_runs(read_bundle(made), tmp_path / "theirs")
    write_bundle(own_runs(tmp_path / "theirs"), tmp_path / "again.zip")
    assert (tmp_path / "again.zip").read_bytes() == made.read_bytes()


def test_the_manifest_holds_the_digests_that_it_says(made: Path) -> None:
    with zipfile.ZipFile(made) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    assert json.loads(manifest_of(files)) == json.loads(files["manifest.json"])
    validator("bundle").validate(json.loads(files["manifest.json"]))
    validator("run").validate(json.loads(files[file_of(files, "run.json")]))


def test_a_bundle_holds_nothing_secret(made: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(made) as archive:
        text = b"".join(archive.read(name) for name in archive.namelist() if name.endswith(("json", "jsonl")))
        arrays = np.load(io.BytesIO(archive.read(next(name for name in archive.namelist() if name.endswith("npz")))))
    assert b"somebody" not in text
    assert b"secret" not in text
    assert len(arrays.files) == 4
    for digest in arrays.files:
        evidence = Evidence.load(tmp_path / "mine" / "store" / "evidence" / digest / "evidence.npz")
        assert (arrays[digest] == (evidence.expected != evidence.observed)).all()


def test_a_run_that_is_there_is_left_and_another_of_its_name_refused(made: Path, tmp_path: Path) -> None:
    runs = read_bundle(made)
    assert write_runs(runs, tmp_path / "mine") == {runs[0].id: False}
    assert write_runs(runs, tmp_path / "theirs") == {runs[0].id: True}
    assert write_runs(runs, tmp_path / "theirs") == {runs[0].id: False}
    path = tmp_path / "theirs" / "runs" / runs[0].id / "results.jsonl"
    path.write_text(path.read_text().replace("innocent 0", "innocent 9"))
    with pytest.raises(BadParamsError, match="is in .* already, with other results"):
        write_runs(runs, tmp_path / "theirs")


def test_a_real_run_goes_there_and_back(manager: Any, tmp_path: Path) -> None:
    run = run_toy(manager, tmp_path / "mine", methods=["ipguard"], attacks=[])
    write_bundle(own_runs(tmp_path / "mine"), tmp_path / "x.zip")
    (read,) = read_bundle(tmp_path / "x.zip")
    assert len(read.cells) == len(run.results)
    key = next((tmp_path / "mine" / "store").rglob("key.safetensors")).read_bytes()
    with zipfile.ZipFile(tmp_path / "x.zip") as archive:
        assert not any(archive.read(name).count(key[-256:]) for name in archive.namelist())


def test_hostile_names_survive(tmp_path: Path) -> None:
    names = tuple(HOSTILE)
    write_bundle(own_runs(make_store(tmp_path / "mine", names=names)), tmp_path / "x.zip")
    (read,) = read_bundle(tmp_path / "x.zip")
    assert (
        tuple(cell["suspect"] for cell in read.cells if cell["kind"] == "positive" and cell["status"] == "ok") == names
    )


def test_without_evidence_nothing_is_exported(tmp_path: Path) -> None:
    output = make_store(tmp_path / "mine")
    with pytest.raises(MissingError, match="There are no results"):
        own_runs(tmp_path / "nowhere")
    next((output / "store").rglob("evidence.npz")).unlink()
    with pytest.raises(StoreError, match="The evidence of m on .* is not in .* nobody could check its rate"):
        own_runs(output)


# What is checked


def test_the_figures_of_an_honest_cell_follow_from_its_errors(made: Path) -> None:
    """By another way: counted one by one."""
    (run,) = read_bundle(made)
    for cell in run.cells[:4]:
        wrong = run.errors[cell["digests"]["evidence"]].tolist()
        passed = sum(sum(trial) <= cell["tau"] for trial in wrong)
        assert cell["detection_rate"] == passed / TRIALS
        assert cell["bit_error_rate"] == sum(map(sum, wrong)) / TRIALS / SYMBOLS
        assert cell["interval"] == pytest.approx(list(binomtest(passed, TRIALS).proportion_ci(method="exact")))


FORGED = {
    "detection_rate": 0.0625, "bit_error_rate": 0.4, "curve": [0.0] * SYMBOLS + [1.0], "interval": [0.1, 0.2], "bound": 0.01,
    "n_trials": 99, "tau": 0, "paper_rule": None,
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(FORGED))
def test_a_figure_that_does_not_follow_is_refused_with_the_cells_name(made: Path, name: str) -> None:
    (run,) = read_bundle(made)
    value = not run.cells[3]["paper_rule"] if name == "paper_rule" else FORGED[name]
    with pytest.raises(BadParamsError, match="m on good, seed 0: the .* is said to be .*; its evidence gives"):
        read_bundle(repacked(made, edit_cell(3, **{name: value})))


def test_cells_and_evidence_belong_together(made: Path) -> None:
    (run,) = read_bundle(made)
    some = dict(list(run.errors.items())[1:])
    with pytest.raises(Mismatch, match="there is no evidence of it"):
        check_cells(run.records, some)
    with pytest.raises(Mismatch, match="belongs to no cell"):
        check_cells(run.records[1:], run.errors)


# What is refused


def put(name: str, data: bytes) -> Callable[[dict[str, bytes]], None]:
    return lambda files: files.update({file_of(files, name) if name in ("run.json", "errors.npz") else name: data})


def npz(**arrays: Any) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


@pytest.mark.parametrize("name", ["../../evil", "/etc/passwd", "runs/../x/run.json", "runs/a/b/run.json", "key.safetensors", "runs\\x", "runs/.x/run.json"])  # fmt: skip
def test_names_that_are_none_of_a_bundle_are_refused(made: Path, name: str) -> None:
    with pytest.raises(BadParamsError, match="which is no file of a bundle"):
        read_bundle(repacked(made, put(name, b"x"), honest=False))


@pytest.mark.parametrize(
    "change", [edit_cell(0, utility={"knn": 0.99}), put("run.json", b"{}"), put("errors.npz", b"x")]
)
def test_what_was_changed_is_noticed_by_its_digest(made: Path, change: Any) -> None:
    with pytest.raises(BadParamsError, match="was changed: its SHA-256 is another"):
        read_bundle(repacked(made, change, honest=False))


def test_a_changed_manifest_is_noticed(made: Path) -> None:
    def change(files: dict[str, bytes]) -> None:
        files["manifest.json"] = files["manifest.json"].replace(b'"cells": 5', b'"cells": 6')

    with pytest.raises(BadParamsError, match=r"manifest.json was changed"):
        read_bundle(repacked(made, change, honest=False))


def test_a_file_left_out_or_put_in_is_noticed(made: Path) -> None:
    with pytest.raises(BadParamsError, match="missing, though listed in its manifest"):
        read_bundle(repacked(made, lambda files: files.pop(file_of(files, "errors.npz")), honest=False))
    with pytest.raises(BadParamsError, match="not listed in its manifest"):
        read_bundle(repacked(made, put("runs/other/results.jsonl", b""), honest=False))
    with pytest.raises(BadParamsError, match=r"has no manifest.json"):
        read_bundle(repacked(made, lambda files: files.pop("manifest.json"), honest=False))


def test_another_schema_is_refused(made: Path) -> None:
    def change(files: dict[str, bytes]) -> None:
        files["manifest.json"] = files["manifest.json"].replace(b'"schema": 2', b'"schema": 3')

    with pytest.raises(BadParamsError, match="not of schema 1 or 2, which this version of amb reads"):
        read_bundle(repacked(made, change))


@pytest.mark.parametrize(
    ("array", "why"),
    [
        (np.array([["x", None]], dtype=object), "errors.npz, aaaaaaaa.npy: "),
        (np.full((TRIALS, SYMBOLS), 2, dtype=np.uint8), "not a table of zeros and ones"),
        (np.zeros((TRIALS, SYMBOLS)), "errors.npz"),
        (np.zeros(8, dtype=np.uint8), "not a table of zeros and ones"),
    ],
)
def test_arrays_other_than_zeros_and_ones_are_refused_and_none_is_unpickled(made: Path, array: Any, why: str) -> None:
    with pytest.raises(BadParamsError, match=why):
        read_bundle(repacked(made, put("errors.npz", npz(aaaaaaaa=array))))


def test_an_array_that_claims_to_be_huge_takes_no_memory(made: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        header = io.BytesIO()
        np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": (1 << 40, 8)})
        archive.writestr("aaaaaaaa.npy", header.getvalue())
    with pytest.raises(BadParamsError, match=r"errors.npz, aaaaaaaa.npy"):
        (run,) = [name for name in zipfile.ZipFile(made).namelist() if name.endswith("errors.npz")]
        read_bundle(with_file(made, run, buffer.getvalue()))


def with_file(path: Path, name: str, data: bytes) -> Path:
    """The bundle with a file that numpy cannot load, under honest file digests."""

    def change(files: dict[str, bytes]) -> None:
        files[name] = data
        manifest = json.loads(files["manifest.json"])
        manifest["files"][name] = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
        manifest.pop("digest")
        files["manifest.json"] = json.dumps({**manifest, "digest": sha256(manifest)}).encode()

    return repacked(path, change, honest=False)


def test_a_zip_bomb_is_refused_before_it_is_unpacked(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "MOST_BYTES", 1_000_000)
    with pytest.raises(BadParamsError, match="unpacked it takes .* bytes, more than 1,000,000"):
        read_bundle(repacked(made, put("errors.npz", b"\0" * 2_000_000), honest=False))
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("aaaaaaaa.npy", b"\0" * 2_000_000)
    name = next(each for each in zipfile.ZipFile(made).namelist() if each.endswith("errors.npz"))
    with pytest.raises(BadParamsError, match="unpacked it takes"):
        read_bundle(with_file(made, name, inner.getvalue()))


@pytest.mark.parametrize("kind", ["link", "twice"])
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_links_and_doubles_are_refused(made: Path, kind: str) -> None:
    with zipfile.ZipFile(made, "a") as archive:
        entry = zipfile.ZipInfo("runs/x/run.json" if kind == "link" else "manifest.json")
        if kind == "link":
            entry.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(entry, "/etc/passwd")
    with pytest.raises(BadParamsError, match="is a link" if kind == "link" else "is in it twice"):
        read_bundle(made)


@pytest.mark.parametrize(
    "line",
    [b"[]", b"NaN", b'{"a": 1e999}', b"{", b'"\\ud800"', b"[" * 100_000, b"{}"],
)
def test_lines_that_are_no_cells_are_refused(made: Path, line: bytes) -> None:
    name = next(each for each in zipfile.ZipFile(made).namelist() if each.endswith("results.jsonl"))
    with pytest.raises(BadParamsError, match=r"results.jsonl") as said:
        read_bundle(with_file(made, name, line))
    assert len(str(said.value).splitlines()) == 1


@pytest.mark.parametrize("data", [b"", b"PK", b"\x80\x04K*.", b"x" * 1000])
def test_what_is_no_zip_is_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "x.zip").write_bytes(data)
    with pytest.raises(BadParamsError, match="is no bundle of results, or a damaged one"):
        read_bundle(tmp_path / "x.zip")


def test_every_byte_that_is_flipped_is_noticed_or_changes_nothing(made: Path, tmp_path: Path) -> None:
    data, digest = made.read_bytes(), read_bundle(made)[0].digest
    for at in range(0, len(data), max(1, len(data) // 60)):
        flipped = tmp_path / "flipped.zip"
        flipped.write_bytes(data[:at] + bytes([data[at] ^ 0x55]) + data[at + 1 :])
        try:
            assert read_bundle(flipped)[0].digest == digest
        except AmbError:
            continue


# The command line


def amb(*arguments: str) -> subprocess.CompletedProcess[str]:
    return run_amb(*arguments)


def test_export_import_report_and_leaderboard_by_hand(tmp_path: Path) -> None:
    make_store(tmp_path / "mine")
    done = amb("export", "--output-dir", "mine", "-o", "x.zip")
    assert done.returncode == 0, done.stderr
    assert json.loads(zipfile.ZipFile("x.zip").read("manifest.json"))["digest"] == done.stdout.strip()
    done = amb("import", "x.zip", "--output-dir", "theirs")
    assert (done.returncode, done.stdout.split()[1:]) == (0, ["imported"]), done.stderr
    done = amb("leaderboard", "x.zip", "theirs", "--format", "json")
    document = json.loads(done.stdout)
    validator("report").validate(document)
    assert document["sources"] == {document["runs"][0]["id"]: ["x.zip", "theirs"]}
    Path("x.zip").write_bytes(b"no zip")
    done = amb("import", "x.zip", "--output-dir", "theirs")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("amb: x.zip is no bundle of results")
    assert len(done.stderr.splitlines()) == 1
