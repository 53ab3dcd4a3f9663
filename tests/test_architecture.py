"""The directions in which modules may know each other, and the names that are public."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import amb

ROOT = Path(__file__).parents[1]
CORE = sorted((ROOT / "amb").rglob("*.py"))
PLUGINS = sorted((ROOT / "plugins").rglob("*.py"))

LAYERS = [
    {"errors", "spec", "progress", "measure", "yamlfile", "worth", "views", "quiet"},
    {"compute", "places", "room"},
    {"component", "records", "heads", "data"},
    {"protocols", "context", "statistics", "calibration", "descent", "tuning"},
    {"hookspecs", "vision", "checkpoint", "store"},
    {"plugins", "profile", "fidelity"},
    {"models", "plan"},
    {"shelf"},
    {"steps", "sweep"},
    {"sweepfile"},
    {"engine"},
    {"document", "collection", "tables", "workers", "schema", "evidence"},
    {"layouts", "figures", "reporters", "tracked", "bundle", "reckon"},
    {"tracking"},
    {"server"},
    {"pages"},
    {"builtin", "cli", "testing"},
]
"""A module imports from its own layer and those above it in this list."""


def imports(path: Path, *, typing_too: bool = False) -> set[str]:
    """The modules a file imports anywhere in it, outside `if TYPE_CHECKING`."""
    tree = ast.parse(path.read_text())
    if not typing_too:
        for node in ast.walk(tree):
            if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
                node.body = []
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


@pytest.mark.parametrize("path", CORE, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_core_knows_no_plugin_and_imports_upwards_only(path: Path) -> None:
    own = path.relative_to(ROOT / "amb").parts[0].removesuffix(".py")
    if own in ("__init__", "__main__"):
        return
    rank = {name: index for index, layer in enumerate(LAYERS) for name in layer}
    for module in imports(path):
        top, _, rest = module.partition(".")
        assert not top.startswith("amb_"), f"core imports the plugin {module}"
        name = rest.partition(".")[0]
        if top == "amb" and name in rank:
            assert rank[name] <= rank[own], f"{own} imports {module}, which is built on it"


@pytest.mark.parametrize("path", PLUGINS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_plugins_know_amb_and_themselves_only(path: Path) -> None:
    own = path.relative_to(ROOT / "plugins").parts[0]
    for module in imports(path, typing_too=True):
        top = module.partition(".")[0]
        assert not top.startswith("amb_") or top == own, f"{own} imports another plugin, {module}"
        assert not module.startswith(
            ("amb.execution.engine", "amb.execution.steps", "amb.execution.planning", "amb.execution.store", "amb.cli")
        ), f"{own} imports {module}"


@pytest.mark.parametrize("path", [*CORE, *PLUGINS], ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_file_says_what_it_is_about(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text()))


def test_nothing_is_unpickled() -> None:
    for path in [*CORE, *PLUGINS]:
        text = path.read_text()
        assert not {"pickle", "joblib", "shelve", "dill"} & imports(path), path
        assert "torch.load(" not in text.replace("torch.load(f, weights_only=True)", ""), path


def test_statistics_needs_no_torch() -> None:
    code = "import sys, amb.evaluation.statistics as s; s.trial_fpr(32, 5); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_public_names_exist_and_are_complete() -> None:
    for name in amb.__all__:
        assert getattr(amb, name) is not None
    assert set(dir(amb)) == set(amb.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        amb.nothing  # noqa: B018
