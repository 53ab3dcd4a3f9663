"""The documentation is an interface: its blocks run, its names exist, what it promises of the code is so."""

from __future__ import annotations

import importlib
import json
import os
import re
import runpy
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from amb.plugin.manager import Manager
from amb.sweeps.reader import read_sweep
from amb.testing import AttackContract
from amb.testing.contracts import example_document

ROOT = Path(__file__).parents[1]
GENERATE = runpy.run_path(str(ROOT / "docs" / "generate.py"))
PAGES = GENERATE["pages"]()


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
    about = pyproject.parent / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    about.mkdir()
    header = f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    (about / "METADATA").write_text(header)
    points = [f"{key} = {value}" for key, value in project["entry-points"]["amb"].items()]
    (about / "entry_points.txt").write_text("\n".join(["[amb]", *points, ""]))


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
    assert len(text.splitlines()) <= 110


def test_methods_have_a_source_and_every_attack_a_page() -> None:
    registry = Manager().registry
    assert all(cls.source for cls in registry.methods.classes.values())
    assert all((cls.__doc__ or "").strip() for cls in registry.attacks.classes.values())


def test_the_threat_model_says_whom_each_attack_stands_for() -> None:
    text = (ROOT / "docs" / "threats.md").read_text(encoding="utf-8")
    registry = Manager().registry
    assert not [name for name in registry.attacks.classes if f"`{name}`" not in text]
    first_column = re.compile(r"^\|[^|]*\|(.*)\|$", re.MULTILINE)
    named = re.findall(r"`([a-z0-9-]+)`", " ".join(first_column.findall(text)))
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
