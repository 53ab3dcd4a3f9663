"""The directions in which rooms may know each other, what plugins may know, and the names that are public."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

import amb

ROOT = Path(__file__).parents[1]
CORE = sorted((ROOT / "amb").rglob("*.py"))
PLUGINS = sorted((ROOT / "plugins").rglob("*.py"))
ROOMS = sorted(path.parent.name for path in (ROOT / "amb").glob("*/__init__.py"))
RUN = {"cli", "python", "execution", "evaluation", "models", "store", "plugin", "api", "runtime"}
"""The rooms that one run goes through, from the command line to the verdict."""


def imports(path: Path) -> set[str]:
    """The modules that a file imports anywhere in it: inside functions and under TYPE_CHECKING too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def known_by(paths: Mapping[str, list[Path]]) -> dict[str, set[str]]:
    """For each room, or module, the others that its files import."""
    names = {name.removesuffix(".__init__"): name for name in paths}
    return {
        name: {names[each] for path in files for each in imports(path) if each in names and names[each] != name}
        for name, files in paths.items()
    }


def rooms() -> dict[str, set[str]]:
    files = {f"amb.{room}": sorted((ROOT / "amb" / room).rglob("*.py")) for room in ROOMS}
    found = {room: {module for path in paths for module in imports(path)} for room, paths in files.items()}
    return {
        room: {
            other for other in files if other != room and any(f"{each}.".startswith(f"{other}.") for each in modules)
        }
        for room, modules in found.items()
    }


def circles(known: Mapping[str, set[str]]) -> Iterator[frozenset[str]]:
    """The groups of rooms, or modules, that lead back to themselves."""
    reached: dict[str, set[str]] = {}
    for start in known:
        seen, ahead = set(), [start]
        while ahead:
            for other in known[ahead.pop()] - seen:
                seen.add(other)
                ahead.append(other)
        reached[start] = seen
    groups = {
        frozenset(other for other in known if other in reached[name] and name in reached[other]) | {name}
        for name in known
        if name in reached[name]
    }
    yield from sorted(groups, key=sorted)


def test_no_circle_between_rooms() -> None:
    assert list(circles(rooms())) == []


@pytest.mark.parametrize("room", ROOMS)
def test_no_circle_inside_a_room_but_one_small_one_in_api(room: str) -> None:
    folder = ROOT / "amb" / room
    files = {".".join(path.relative_to(ROOT).with_suffix("").parts): [path] for path in sorted(folder.rglob("*.py"))}
    found = list(circles(known_by(files)))
    if room == "api":
        assert found == [frozenset({"amb.api.context", "amb.api.interfaces"})]
    else:
        assert found == []


def test_one_run_goes_one_way_through_nine_rooms() -> None:
    known = rooms()
    for room in RUN - {"cli"}:
        outside = {other.removeprefix("amb.") for other in known[f"amb.{room}"]} - RUN
        allowed = {"python": {"ownership", "results", "report", "sweeps"}, "execution": {"training"}}.get(room, set())
        assert outside <= allowed, f"{room} knows {outside}"


def test_errors_and_runtime_know_nothing_above_them() -> None:
    assert rooms()["amb.runtime"] == set()
    assert not any(module.startswith("amb") for module in imports(ROOT / "amb" / "errors.py"))


def test_ownership_lies_below_the_doors() -> None:
    known = rooms()
    assert {room for room, others in known.items() if "amb.ownership" in others} <= {"amb.cli", "amb.python"}
    below = {"runtime", "api", "plugin", "store", "models", "evaluation", "execution", "results", "report"}
    assert known["amb.ownership"] <= {f"amb.{room}" for room in below}


@pytest.mark.parametrize("path", CORE, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_core_knows_no_plugin(path: Path) -> None:
    assert not [module for module in imports(path) if module.startswith("amb_")]


@pytest.mark.parametrize("path", PLUGINS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_plugins_know_amb_and_themselves_only(path: Path) -> None:
    own = path.relative_to(ROOT / "plugins").parts[0]
    public = {"amb", "amb.testing", *(f"amb.{name}" for name in amb.__all__)}
    for module in imports(path):
        top = module.partition(".")[0]
        assert not top.startswith("amb_") or top == own, f"{own} imports another plugin, {module}"
        if top == "amb" and not module.startswith("amb.testing."):
            assert module in public, f"{own} imports {module}, which is not public"


@pytest.mark.parametrize("path", [*CORE, *PLUGINS], ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_file_says_what_it_is_about(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))


def test_nothing_is_unpickled() -> None:
    for path in [*CORE, *PLUGINS]:
        text = path.read_text(encoding="utf-8")
        assert not {"pickle", "joblib", "shelve", "dill"} & imports(path), path
        assert "torch.load(" not in text.replace("torch.load(f, weights_only=True)", ""), path


@pytest.mark.parametrize("module", ["amb.evaluation.verdict", "amb.training.config", "amb.api.types", "amb.api.plan"])
def test_light_modules_need_no_torch(module: str) -> None:
    code = f"import sys, {module}; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_public_names_exist_and_are_complete() -> None:
    for name in amb.__all__:
        assert getattr(amb, name) is not None
    assert set(dir(amb)) == set(amb.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        amb.nothing  # noqa: B018
