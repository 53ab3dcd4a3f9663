"""The documentation is an interface: its blocks run, its names exist, what it promises of the code is so."""

from __future__ import annotations

import importlib
import json
import os
import re
import subprocess
import sys
import textwrap
import tomllib
from base64 import b64decode
from fnmatch import fnmatchcase
from itertools import zip_longest
from pathlib import Path
from typing import Any

import generate
import nbformat
import pytest
import python_pages
import quickstart
import rooms
import yaml

import amb
import amb.testing
from amb.plugin.manager import Manager
from amb.sweeps.reader import read_sweep
from amb.testing import AttackContract
from amb.testing.reporter import example_document
from tests.installed import install_plugin

ROOT = Path(__file__).parents[1]
PAGES = generate.pages()


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_data_that_is_shown_can_be_read(page: Path) -> None:
    for language, read in (("yaml", yaml.safe_load), ("toml", tomllib.loads), ("json", json.loads)):
        for block in blocks(page, language):
            assert read(block)


WRITING = {"write_attack": ["zero-rows10", "input-grey"], "write_method": ["projections"]}
"""Pages that build a package, and components in it."""


def write_files(page: Path, folder: Path) -> list[Path]:
    """The files that a page shows: blocks whose first line is a comment with their name."""
    folder.mkdir()
    shown = [block for language in ("python", "toml") for block in blocks(page, language)]
    names = [block.partition("\n")[0].removeprefix("# ") for block in shown]
    for name, text in zip(names, shown, strict=True):
        (folder / name).write_text(text, encoding="utf-8")
    return [folder / name for name in names]


def install(pyproject: Path) -> None:
    """The metadata that pip would write of the project, beside its module."""
    project = tomllib.loads(pyproject.read_text())["project"]
    install_plugin(pyproject.parent, project["name"], project["entry-points"]["amb"], project["version"])


def test_the_packages_that_pages_build_are_found_and_pass_their_tests(tmp_path: Path) -> None:
    tests, folders = [], []
    for page in WRITING:
        module, test, pyproject = write_files(ROOT / "docs" / f"{page}.md", tmp_path / page)
        assert (module.suffix, test.name, pyproject.suffix) == (".py", f"test_{module.name}", ".toml")
        install(pyproject)
        tests.append(str(test))
        folders.append(str(tmp_path / page))
    path = os.pathsep.join(filter(None, [*folders, os.environ.get("PYTHONPATH")]))

    def python(*arguments: str) -> str:
        environment = {**os.environ, "PYTHONPATH": path}
        command = [sys.executable, "-m", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    listed = python("amb", "list", "attacks") + python("amb", "list", "methods")
    assert all(f"\n{name} " in f"\n{listed}" for names in WRITING.values() for name in names)
    assert re.search(r"\d{2} passed", python("pytest", "-q", "-p", "no:cacheprovider", *tests))


class TestTutorialAttack(AttackContract):
    """The attack that plugins/README.md shows keeps the contract."""

    @pytest.fixture
    def attack(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        (block,) = blocks(ROOT / "plugins" / "README.md", "python")
        (tmp_path / "tutorial_plugin.py").write_text(block)
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.delitem(sys.modules, "tutorial_plugin", raising=False)
        return importlib.import_module("tutorial_plugin").Scale()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8")):
        start = ROOT if target.startswith("/") else page.parent  # as GitHub reads it
        assert (start / target.lstrip("/")).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_commands_that_are_shown_exist(page: Path) -> None:
    from amb.cli import COMMANDS

    shown = re.findall(r"(?:^|[`\s])amb ([a-z]+)(?= [-`<a-zA-Z]|`)", page.read_text(encoding="utf-8"))
    assert set(shown) <= {*COMMANDS, "is", "run", "and", "in", "as"}


DEFINITIONS = sorted(path for path in ROOT.glob("benchmarks/**/*.yaml") if path.name != "common.yaml")


@pytest.mark.parametrize("path", DEFINITIONS, ids=lambda path: path.stem)
def test_every_benchmark_is_a_sweep_that_can_be_planned(path: Path) -> None:
    registry = Manager().registry
    sweep = read_sweep(path, registry)
    assert sweep.name == path.stem
    assert sum(len(plan.cells()) for plan in sweep.plans(registry)) == sweep.n_cells(registry) > 0


def test_the_sweep_file_that_is_shown_spells_out_what_its_comments_say(tmp_path: Path) -> None:
    (block,) = blocks(ROOT / "docs" / "schema.md", "yaml")
    (tmp_path / "shown.yaml").write_text(block)
    sweep = read_sweep(tmp_path / "shown.yaml", Manager().registry)
    assert (len(sweep.methods), len(sweep.attacks), sweep.seeds) == (1 + 6, 2 + 2, (0, 1, 2))


def test_every_key_of_the_document_is_described() -> None:
    text = (ROOT / "docs" / "schema.md").read_text(encoding="utf-8")
    for cell in example_document()["cells"]:
        assert not [key for key in cell if f"`{key}`" not in text]


def test_the_readme_shows_the_two_commands() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert "python -m pip install . && amb run --method activemark --attack prune40" in text
    assert "python -m pip install tox && tox" in text
    assert len(text.splitlines()) <= 120


def test_methods_have_a_source_and_every_attack_a_page() -> None:
    registry = Manager().registry
    assert all(cls.source for cls in registry.methods.classes.values())
    assert all((cls.__doc__ or "").strip() for cls in registry.attacks.classes.values())


def test_the_threat_model_says_whom_each_attack_stands_for() -> None:
    text = (ROOT / "docs" / "threats.md").read_text(encoding="utf-8")
    registry = Manager().registry
    assert not [name for name in registry.attacks.classes if f"`{name}`" not in text]
    assert not [name for name in registry.methods.classes if f"| `{name}` |" not in text]
    attacks = text[: text.index("## Each method's own thief")]
    first_column = re.compile(r"^\|[^|]*\|(.*)\|$", re.MULTILINE)
    named = re.findall(r"`([a-z0-9-]+)`", " ".join(first_column.findall(attacks)))
    assert set(named) <= set(registry.attacks.classes)


def test_the_glossary_has_every_class_of_negatives_and_no_other() -> None:
    text = (ROOT / "docs" / "concepts.md").read_text(encoding="utf-8")
    shown = re.findall(r"^\| `([a-z-]+)` \|", text, re.MULTILINE)
    given = {"folder": {"model": "file/a", "data": "images", "negatives": "file/b"}}
    suites = [cls.create(given.get(name, {})) for name, cls in Manager().registry.suites.classes.items()]
    known = {each.group for suite in suites for each in (*suite.independents(), *suite.siblings())}
    assert sorted(shown) == sorted(known)


def test_the_glossary_has_the_words_of_the_field() -> None:
    text = (ROOT / "docs" / "concepts.md").read_text(encoding="utf-8").lower()
    words = """owner, suspect, positive suspect, negative suspect, sibling, method, watermark, fingerprint, embed, extract,
    verification, key, message, trigger set, query, trial, threshold τ, detection rate R(τ), matching rate, mutation rate,
    utility, fidelity, robustness, expressive block, attack, removal attack, model extraction, suite, cell, run, sweep"""
    assert not [word for word in words.lower().split(",") if f"**{' '.join(word.split())}**" not in text]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_specs_on_a_shown_command_line_name_something(page: Path) -> None:
    registry = Manager().registry
    shown = " ".join(blocks(page, "sh"))
    own = {*WRITING["write_attack"], *WRITING["write_method"]}  # what the pages themselves build
    for method in set(re.findall(r"--method ([a-z][^\s]*)", shown)) - own:
        assert registry.method(method)
    for chain in set(re.findall(r"--attack ([a-z][^\s]*)", shown)):
        assert all(part in own or registry.attack_chain(part) for part in chain.split("+"))


RUN_BLOCKS = """
import contextlib, io, json, sys
for number, block in enumerate(json.load(open("blocks.json", encoding="utf-8")), 1):
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        exec(compile(block, f"block-{number}.py", "exec"), globals())
    print(json.dumps(said.getvalue()))
"""


def shown_outputs(page: Path) -> list[tuple[str, str]]:
    """Every Python block of a page with what the page says it prints: the text block right under it, or nothing."""
    found = re.findall(r"```python\n(.*?)```\n(?:\n```text\n(.*?)```)?", page.read_text(encoding="utf-8"), re.DOTALL)
    assert len(found) == len(blocks(page, "python"))
    return found


def says_the_same(wanted: str, got: str) -> bool:
    """Word by word; `...` stands for anything in a word, and another processor may end up some hundredths away."""
    words = list(zip_longest(wanted.split(), got.split(), fillvalue=""))
    return all(
        fnmatchcase(it, re.sub(r"\.{3}", "*", word.replace("[", "[[]"))) or are_near(word, it) for word, it in words
    )


def are_near(wanted: str, got: str) -> bool:
    """Whether two words are decimal numbers less than 0.1 apart."""
    numbers = [re.fullmatch(r"\d+\.\d+", word) for word in (wanted, got)]
    return all(numbers) and abs(float(wanted) - float(got)) < 0.1


def test_outputs_are_compared_word_by_word() -> None:
    assert says_the_same("a/.../b [] R 0.30", "a/x-1/b  []\nR 0.31")
    assert not any(
        says_the_same("owned True 0.3 7", got) for got in ("owned False 0.3 7", "owned True 0.5 7", "owned True 0.3 8")
    )
    assert not says_the_same("one", "one two")
    assert not says_the_same("one two", "one")


def test_the_simulation_of_the_statistics_page_holds() -> None:
    (simulation,) = blocks(ROOT / "docs" / "statistics.md", "python")
    found: dict[str, Any] = {}
    exec(simulation, found)  # its own assertion is what is tested
    assert len(found["p"]) == 5_000
    assert abs(float((found["p"] <= 0.5).mean()) - found["binom"].sf(32, 64, 0.5)) < 0.03, (
        "coins, not merely few claims"
    )


def test_the_python_page_runs_and_prints_what_it_shows(tmp_path: Path) -> None:
    shown = shown_outputs(ROOT / "docs" / "python.md")
    (tmp_path / "blocks.json").write_text(json.dumps([block for block, _ in shown]), encoding="utf-8")
    environment = {**os.environ, "AMB_DISABLE_PLUGINS": "mlflow"}  # the page says nothing of it, and it takes seconds
    command = [sys.executable, "-c", RUN_BLOCKS]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path, check=False)
    printed = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0, done.stderr
    wrong = [
        f"{block}prints\n{got}not\n{wanted}"
        for (block, wanted), got in zip(shown, printed, strict=True)
        if not says_the_same(wanted, got)
    ]
    assert not wrong, "\n".join(wrong)
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")


# The notebook


def outputs(of: nbformat.NotebookNode, kind: str) -> list[str]:
    """What its cells show of a MIME type."""
    shown = [output.get("data", {}) for cell in of.cells for output in cell.get("outputs", [])]
    return [data[kind] for data in shown if kind in data]


def check_notebook(done: nbformat.NotebookNode) -> None:
    """Whether it shows a table, a frame, a verdict and a figure, and no error."""
    tables = outputs(done, "text/html")
    assert len(tables) == 2
    assert "<caption>ipguard · tiny/owner · seed 0</caption>" in tables[0]
    assert "detection_rate_high" in tables[1]
    assert all("prune40" in table for table in tables)
    (figure,) = outputs(done, "image/png")
    assert b64decode(figure).startswith(b"\x89PNG")
    streams = [output for cell in done.cells for output in cell.get("outputs", []) if output.output_type == "stream"]
    assert [output for output in streams if output.name == "stderr"] == []  # which a notebook paints red
    assert re.search(
        r"claim: True, since p = 0\.\d{3} ≤ 0\.\d{3} \(calibrated\)", "".join(output.text for output in streams)
    )


def test_the_notebook_is_kept_with_small_outputs() -> None:
    kept = nbformat.read(quickstart.NOTEBOOK, as_version=4)
    nbformat.validate(kept)
    assert [cell.source for cell in kept.cells] == [cell.source for cell in quickstart.make_notebook().cells]
    check_notebook(kept)
    assert quickstart.NOTEBOOK.stat().st_size < 100_000
    assert str(Path.home()) not in quickstart.NOTEBOOK.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#:]+)\)", " ".join(cell.source for cell in kept.cells)):
        assert (quickstart.NOTEBOOK.parent / target).exists(), target


def test_the_notebook_runs(tmp_path: Path) -> None:
    fresh = quickstart.make_notebook()
    quickstart.run_notebook(fresh, tmp_path)
    check_notebook(fresh)


# The map, and the reference of Python names


def test_the_picture_of_the_rooms_is_of_these_imports() -> None:
    assert rooms.PICTURE.read_text(encoding="utf-8") == rooms.draw(), "run: python docs/rooms.py"
    graph = rooms.find_rooms()
    assert set(rooms.ABOUT) == set(graph)
    layers = rooms.find_layers(graph)
    assert all(layers[other] < layers[room] for room, known in graph.items() for other in known)


def test_the_nearest_rooms_lead_to_all_others() -> None:
    def reached(graph: rooms.Graph, room: str) -> set[str]:
        return graph[room].union(*(reached(graph, other) for other in graph[room]))

    graph = rooms.find_rooms()
    nearest = rooms.keep_nearest(graph)
    assert all(reached(nearest, room) == reached(graph, room) for room in graph)
    assert sum(map(len, nearest.values())) < sum(map(len, graph.values()))


def test_what_is_written_in_a_room_of_the_picture_fits() -> None:
    assert all(len(textwrap.wrap(text, rooms.LETTERS)) <= 2 for text in rooms.ABOUT.values())


def test_the_map_names_files_that_are_there_and_every_room() -> None:
    text = (ROOT / "amb" / "README.md").read_text(encoding="utf-8")
    named = re.findall(r"`(amb/[^`]+)`", text)
    assert len(named) > 25
    assert not [path for path in named if not (ROOT / path).exists()]
    rows = re.findall(r"^\| `(\w+)/` \|[^|]*\|(.*)\|$", text, re.MULTILINE)
    assert {room for room, _ in rows} == set(rooms.find_rooms())
    for room, files in rows:
        assert not [name for name in re.findall(r"`([\w/.]+)`", files) if not (ROOT / "amb" / room / name).exists()]


def test_every_public_name_has_its_docstring_and_its_place() -> None:
    placed = [name for _, _, names in python_pages.GROUPS.values() for name in names] + ["hookimpl"]
    assert sorted(placed) == sorted(amb.__all__)
    public = [*(f"amb.{name}" for name in placed), *(f"amb.testing.{name}" for name in amb.testing.__all__)]
    assert [name for name in public if not python_pages.find(name).doc] == []


# Policies


def test_the_citation_is_of_this_version_and_invents_nothing() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert {"cff-version", "message", "title", "authors", "type", "license", "version"} <= citation.keys()
    assert (citation["cff-version"], citation["version"], citation["license"]) == (
        "1.2.0",
        amb.__version__,
        "Apache-2.0",
    )
    assert not {"doi", "url", "repository-code", "identifiers"} & citation.keys()
    assert all(set(author) == {"name"} for author in citation["authors"])


def test_the_security_policy_names_no_address() -> None:
    text = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
    assert not re.search(r"\S+@\S+\.\S+", text)
    assert "Nothing is unpickled" in text
