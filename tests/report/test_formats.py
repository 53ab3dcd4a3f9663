"""What amb writes loads as it is: LaTeX in pdflatex, CSV in pandas, JSON against the published schemas."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
import subprocess
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jsonschema
import pandas as pd
import pytest

from amb.api.digests import finite
from amb.plugin.manager import Manager
from amb.report.formats import reporter_of
from amb.report.layouts import LAYOUTS, with_tables
from amb.report.layouts.run import with_run_tables
from amb.report.tables import Column, Table, tables_of
from amb.results import schema
from amb.results.collect import collect
from tests.conftest import run_toy
from tests.report.test_tables import NASTY, document

REGISTRY = Manager().registry
HOSTILE = [
    *NASTY, "[x] starts as an option of \\\\", "* so does a star", "\\input{/etc/passwd} \\write18{ls}", "tab\there \x00\x1b[2J\u202e",
    "a" * 500, "prune:amount=0.4,scope=global,iterations=3+finetune:epochs=5,lr=0.0001,schedule=cosine" * 4, "--flag 'x' `y` ?` !`",
    "ÀéîõüçÇğŞšŽåÅæøßłŁıœ τμλ Ωж العربية 日本 🦄 e\u0301 ½ ≠ −", "", "%",
]  # fmt: skip


def hostile_document() -> dict[str, Any]:
    """The document of the layouts' tests, with hostile names in suspects, methods, attacks and reasons."""
    found = document()
    cells = []
    for name in HOSTILE:
        for at, each in enumerate(found["cells"]):
            named = {"suspect": f"{name} {at}", "method": name, "attack": name, "group": name, "source": name}
            cells.append({**each, **named})
        cells.append({**found["cells"][0], **named, "status": "failed", "reason": name, "detection_rate": None})
    return {**found, "cells": cells}


def compiled(text: str, folder: Path) -> tuple[int, str]:
    """Exit code and log of pdflatex on a minimal article, with no more packages than the first line asks for."""
    packages = re.match(r"% needs (\\usepackage\{[a-z,]+\})\n", text)
    assert packages
    source = f"\\documentclass{{article}}{packages[1]}\\begin{{document}}\n{text}\n\\end{{document}}\n"
    (folder / "table.tex").write_text(source, encoding="utf-8")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "-no-shell-escape", "table.tex"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, errors="replace", check=False)
    return done.returncode, done.stdout


needs_pdflatex = pytest.mark.skipif(not shutil.which("pdflatex"), reason="pdflatex is not installed (texlive)")


@needs_pdflatex
@pytest.mark.parametrize("layout", sorted(LAYOUTS))
def test_latex_compiles_and_stays_on_the_page(layout: str, tmp_path: Path) -> None:
    text = reporter_of("latex", REGISTRY).render(with_tables(hostile_document(), layout))
    code, log = compiled(text, tmp_path)
    assert code == 0, log[-1500:]
    over = [float(points) for points in re.findall(r"Overfull \\[hv]box \(([0-9.]+)pt too", log)]
    assert not [points for points in over if points > 3], log[-3000:]
    assert "Float too large" not in log
    assert "Missing character" not in log


@needs_pdflatex
def test_pdflatex_would_have_said_so(tmp_path: Path) -> None:
    """The checks above can fail: a letter that is not set up, and a line that is too wide."""
    assert compiled("% needs \\usepackage{booktabs}\n日", tmp_path)[0] != 0
    assert "Overfull" in compiled(f"% needs \\usepackage{{booktabs}}\n{'a' * 500}", tmp_path)[1]


@needs_pdflatex
@pytest.mark.skipif(not shutil.which("pdftotext"), reason="pdftotext is not installed (poppler-utils)")
def test_latex_shows_names_as_they_are(tmp_path: Path) -> None:
    name = "a|b & c_d {e} $f% #g ~h ^i \\j <k> [l] *m --n"
    made = Table("t", [Column("suspect", text=True)], [[name], ["日 é ł τ"]])
    assert compiled(reporter_of("latex", REGISTRY).render({"tables": [made.to_json()]}), tmp_path)[0] == 0
    text = subprocess.run(
        ["pdftotext", "-layout", "table.pdf", "-"], cwd=tmp_path, capture_output=True, text=True, check=True
    ).stdout
    shown = "".join(text.split()).replace("ˆ", "^").replace("˜", "~").replace("∼", "~")
    assert "".join(name.split()).replace("_", "") in shown  # an underscore is drawn as a rule, which is no text
    assert "U+65E5" in shown


def test_several_tables_load_as_one_csv() -> None:
    made = with_tables(document(), "robustness")
    frame = pd.read_csv(io.StringIO(reporter_of("csv", REGISTRY).render(made)))
    tables = tables_of(made)
    assert frame["table"].unique().tolist() == [table.title for table in tables]
    for table in tables:
        headers, rows = table.flat()
        part = frame[frame["table"] == table.title]
        assert len(part) == len(rows)
        for at, header in enumerate(headers):
            wanted = pd.Series([row[at] for row in rows], name=header)
            same = part[header].reset_index(drop=True)
            if pd.api.types.is_numeric_dtype(wanted):  # a column may hold words in another table
                same = pd.to_numeric(same)
            pd.testing.assert_series_equal(same.dropna(), wanted.dropna(), check_dtype=False, rtol=1e-12)


def test_columns_that_share_a_name_are_kept_apart_in_csv() -> None:
    one = Table("one", [Column("table"), Column("x"), Column("x")], [[1, 2, 3]]).to_json()
    two = Table("two", [Column("x")], [[4]]).to_json()
    frame = pd.read_csv(io.StringIO(reporter_of("csv", REGISTRY).render({"tables": [one, two]})))
    assert frame.columns.tolist() == ["table", "table.1", "x", "x.1"]
    assert frame["x"].tolist() == [2, 4]


@pytest.mark.parametrize("name", [name for name in HOSTILE if "\x00" not in name])
def test_hostile_names_come_back_from_csv(name: str) -> None:
    tables = [Table(title, [Column("suspect", text=True)], [[f"x{name}"]]).to_json() for title in ("a", "b")]
    frame = pd.read_csv(io.StringIO(reporter_of("csv", REGISTRY).render({"tables": tables})))
    assert frame["suspect"].tolist() == [f"x{name}"] * 2


@pytest.mark.parametrize("sign", ["=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠"])
@pytest.mark.parametrize("n_tables", [1, 2])
def test_no_text_of_a_csv_is_a_formula_and_numbers_stay_numbers(sign: str, n_tables: int) -> None:
    name = f'{sign}HYPERLINK("http://evil","x")'
    one = Table(name, [Column("suspect", text=True), Column(name)], [[name, -0.5], ["plain-name", -1e-7]]).to_json()
    text = reporter_of("csv", REGISTRY).render({"tables": [one] * n_tables})
    fields = [field for row in csv.reader(io.StringIO(text, newline="")) for field in row]
    assert not [field for field in fields if field.startswith(sign) and field not in ("-0.5", "-1e-07")]
    assert "plain-name" in fields
    frame = pd.read_csv(io.StringIO(text))
    assert frame[f"'{name}"].tolist() == [-0.5, -1e-7] * n_tables
    assert frame["suspect"][0] == f"'{name}"


@pytest.mark.parametrize("layout", sorted(LAYOUTS))
def test_every_layout_loads_in_pandas(layout: str) -> None:
    made = with_tables(hostile_document(), layout)
    frame = pd.read_csv(io.StringIO(reporter_of("csv", REGISTRY).render(made).replace("\x00", "")))
    assert len(frame) == sum(len(table.rows) for table in tables_of(made))


# JSON


@cache
def validator(name: str) -> jsonschema.Draft202012Validator:
    published = json.loads((Path(schema.__file__).parent / f"{name}.json").read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(published)
    return jsonschema.Draft202012Validator(published)


@pytest.mark.parametrize("name", sorted(schema.DOCUMENTS))
def test_published_schemas_are_those_of_the_code(name: str, tmp_path: Path) -> None:
    """`python -m amb.results.schema` writes them anew. They are compared by keys: another pydantic may word a title otherwise."""
    schema.write(tmp_path)
    assert json.loads((tmp_path / f"{name}.json").read_text()) == validator(name).schema, version("pydantic")


def test_real_documents_fit_the_published_schemas(manager: Any, tmp_path: Path) -> None:
    run = run_toy(manager, tmp_path, attacks=["prune40"], methods=["ipguard"])
    written = json.loads((run.folder / "run.json").read_text())
    validator("run").validate(written)
    validator("run").validate(json.loads(json.dumps(finite(with_run_tables(written)))))
    lines = (run.folder / "results.jsonl").read_text().splitlines()
    assert len(lines) == len(run.results)
    for line in lines:
        validator("cell").validate(json.loads(line))
    for layout in sorted(LAYOUTS):
        text = reporter_of("json", REGISTRY).render(finite(with_tables(collect(tmp_path), layout)))
        validator("report").validate(json.loads(text))
    refuse_what_is_wrong(json.loads(lines[-1]))


def refuse_what_is_wrong(cell: dict[str, Any]) -> None:
    for change in ({"detection_rate": 1.5}, {"kind": "other"}, {"seed": "0"}, {"curve": []}, {"status": None}):
        with pytest.raises(jsonschema.ValidationError):
            validator("cell").validate({**cell, **change})
    with pytest.raises(jsonschema.ValidationError):
        validator("run").validate({"schema": 3, "run": {}, "cells": []})
