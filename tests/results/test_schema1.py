"""Results of schema 1, as amb 0.1 left them: the run folder and the bundle of a real run are read as new ones are."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path
from typing import Any, get_args

import jsonschema
import pytest

from amb.errors import StoreError
from amb.plugin.manager import Manager
from amb.report.formats import reporter_of
from amb.report.layouts import LAYOUTS, with_tables
from amb.report.tables import tables_of
from amb.results.bundle import own_runs, read_bundle, write_bundle, write_runs
from amb.results.collect import collect
from amb.results.result_set import parse_results
from amb.results.schema import CellForm, Manifest, ReportDocument, RunDocument
from amb.results.versions import READABLE, SCHEMA, Readable, upgrade_cell
from tests.report.test_formats import validator

OLD = Path(__file__).parent / "schema1"
BUNDLE = OLD / "bundle.amb.zip"
(RUN,) = (OLD / "runs").iterdir()
LOST = {"prune40": 0.0020770588846193982, "unattacked": 0.0}
"""What the old files call `utility_lost`."""


def lines() -> list[dict[str, Any]]:
    return [json.loads(line) for line in (RUN / "results.jsonl").read_text().splitlines()]


def test_the_files_are_old_ones() -> None:
    assert json.loads((RUN / "run.json").read_text())["schema"] == 1
    assert {cell["suspect"]: cell["utility_lost"] for cell in lines() if cell["kind"] == "positive"} == LOST
    assert not any("utility_drop" in cell for cell in lines())
    with zipfile.ZipFile(BUNDLE) as archive:
        assert json.loads(archive.read("manifest.json"))["schema"] == 1


def test_a_run_folder_is_collected_under_todays_names() -> None:
    document = collect(OLD)
    assert document["schema"] == SCHEMA == 2
    assert not any("utility_lost" in cell for cell in document["cells"])
    drops = {cell.suspect: cell.utility_drop for cell in parse_results(document).cells if cell.kind == "positive"}
    assert drops == LOST
    validator("report").validate({**document, "tables": []})


def test_a_document_of_one_run_is_read_as_it_lies_there() -> None:
    document = json.loads((RUN / "run.json").read_text())
    assert parse_results(document).cells == parse_results(collect(OLD)).cells
    validator("run").validate(document)
    page = reporter_of("html", Manager().registry).render(document)
    assert all(suspect in page for suspect in LOST)


@pytest.mark.parametrize("layout", sorted(LAYOUTS))
def test_every_layout_shows_it(layout: str) -> None:
    first = tables_of(with_tables(collect(OLD), layout))[0]
    assert first.rows or first.findings  # one method cannot be compared, and that is said


def test_what_was_lost_stands_in_the_tables() -> None:
    _, attacks = tables_of(with_tables(collect(OLD), "robustness"))
    at = attacks.headers().index("lost")
    assert {row[1]: row[at] for row in attacks.rows} == {name: round(lost, 3) for name, lost in LOST.items()}


def test_a_bundle_is_verified_over_the_json_as_it_lies_there(tmp_path: Path) -> None:
    (run,) = read_bundle(BUNDLE)
    assert run.schema == 1
    assert [cell["utility_lost"] for cell in run.cells if cell["suspect"] == "prune40"] == [LOST["prune40"]]
    assert write_runs([run], tmp_path) == {run.id: True}
    assert write_runs([run], tmp_path) == {run.id: False}, "the run that is there is the same, though it is read anew"
    reports = [collect(folder)["cells"] for folder in (tmp_path, OLD)]
    assert reports[0] == reports[1]


def test_an_old_run_is_exported_as_it_was(tmp_path: Path) -> None:
    write_runs(read_bundle(BUNDLE), tmp_path)
    write_bundle(own_runs(tmp_path), tmp_path / "again.zip")
    with zipfile.ZipFile(BUNDLE) as old, zipfile.ZipFile(tmp_path / "again.zip") as new:
        assert json.loads(new.read("manifest.json"))["schema"] == SCHEMA
        assert new.namelist() == old.namelist()
        for name in (name for name in old.namelist() if name.startswith("runs/") and not name.endswith(".npz")):
            assert new.read(name) == old.read(name)
    assert read_bundle(tmp_path / "again.zip")[0].digest == read_bundle(BUNDLE)[0].digest


def test_forms_and_published_schemas_take_every_readable_number() -> None:
    assert get_args(Readable) == READABLE == (1, 2)
    for form in (RunDocument, ReportDocument, Manifest):
        assert form.model_fields["schema_"].annotation == Readable
    for cell in lines():
        CellForm.model_validate(cell)
        CellForm.model_validate(upgrade_cell(cell))
        validator("cell").validate(cell)
    with pytest.raises(jsonschema.ValidationError):
        validator("cell").validate({**lines()[0], "utility_lost": "much"})


def test_a_run_of_a_newer_schema_is_refused_in_one_line(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / RUN.name
    shutil.copytree(RUN, folder)
    document = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps({**document, "schema": 3}))
    with pytest.raises(StoreError, match=r"run\.json is of schema 3; this amb reads 1 or 2\. Install a newer amb\.$"):
        collect(tmp_path)
