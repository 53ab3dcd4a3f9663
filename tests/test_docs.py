"""The documentation is an interface: its blocks run, its names exist, its reference is up to date."""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from amb.plugins import Manager
from amb.sweepfile import read_sweep
from amb.testing import AttackContract
from amb.testing.contracts import example_document

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    [
        *ROOT.glob("*.md"),
        *ROOT.glob("[a-z]*/README.md"),
        *ROOT.glob("benchmarks/*/README.md"),
        *ROOT.glob("docs/*.md"),
        ROOT / "amb/DECISIONS.md",
    ]
)


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)


def test_the_reference_is_made_from_the_code() -> None:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    command = [sys.executable, str(ROOT / "docs" / "generate.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PATH": path}, check=False)
    assert done.returncode == 0, done.stderr


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
        assert (page.parent / target).exists(), target


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
