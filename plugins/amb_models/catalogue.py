"""Which models timm and open_clip know and where their weights lie, read from the libraries' own text, not imported.

Importing them takes seconds, and a missing weight should be named at once. What is read are the tables of their source
files, with a small evaluator for the few expressions in them; nothing is run.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Mapping
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, NamedTuple

_TIMM_KEY: Final = re.compile(r"^\s*['\"]([a-z][\w]*)(?:\.([\w]+)\*?)?['\"]: ", re.MULTILINE)
_TIMM_MODEL: Final = re.compile(r"^def ([a-z]\w*)\(pretrained", re.MULTILINE)
_QUICK: Final = "_clip_quickgelu_"
_SAFE_NAMES: Final = {
    "pytorch_model.bin": "model.safetensors",
    "open_clip_pytorch_model.bin": "open_clip_model.safetensors",
}


class WeightsFile(NamedTuple):
    """Where the trained weights of a model lie: a file on the hub, or only an address with a pickle."""

    repo: str | None
    file: str
    url: str = ""
    quick_gelu: bool = False


def safe_name(file: str) -> str:
    """The safetensors file that stands beside a pickle on the hub, by both libraries' rule."""
    if file in _SAFE_NAMES:
        return _SAFE_NAMES[file]
    stem, dot, ending = file.rpartition(".")
    return f"{stem}.safetensors" if dot and ending in {"bin", "pth"} else file


# timm


@cache
def timm_names() -> frozenset[str]:
    """Names of timm's architectures, and of those with trained weights, `<architecture>.<tag>`."""
    found: set[str] = set()
    for text in _read_timm_texts().values():
        found |= set(_TIMM_MODEL.findall(text))
        found |= {".".join(filter(None, key)) for key in _TIMM_KEY.findall(text)}
    return frozenset(found)


def timm_weights(name: str) -> WeightsFile | None:
    """Where the weights of `<architecture>[.<tag>]` lie; without a tag, of the library's default one."""
    architecture, _, tag = name.partition(".")
    if _QUICK in architecture:
        return _find_quick_weights(architecture.replace(_QUICK, "_clip_"), tag)
    for path in _find_timm_files().get(architecture, ()):
        configurations = _read_timm_configurations(path, architecture)
        chosen = tag or next(iter(configurations), None)
        if chosen is not None and chosen in configurations:
            return _locate_timm(architecture, chosen, configurations[chosen])
    return None


def find_quick_name(name: str) -> str | None:
    """The variant with QuickGELU of a CLIP of timm whose weights were trained with it; None for all others."""
    architecture, _, tag = name.partition(".")
    if "_clip_" not in architecture or _QUICK in architecture:
        return None
    quick = architecture.replace("_clip_", _QUICK)
    is_quick = quick in timm_names() and _find_quick_weights(architecture, tag) is not None
    return f"{quick}.{tag}" if is_quick and tag else None


@cache
def _find_timm_files() -> dict[str, list[Path]]:
    """The files whose tables may have an architecture."""
    found: dict[str, list[Path]] = {}
    for path, text in _read_timm_texts().items():
        for architecture in sorted({architecture for architecture, _ in _TIMM_KEY.findall(text)}):
            found.setdefault(architecture, []).append(path)
    return found


def _find_quick_weights(architecture: str, tag: str) -> WeightsFile | None:
    """Those of CLIP's models that were trained with QuickGELU timm lists once more, in a loop."""
    path = _find_package("timm") / "models" / "vision_transformer.py"
    listed = _read_timm_configurations(path, architecture)
    quick = [each for each, settings in listed.items() if "quickgelu" in str((settings.get("notes") or [""])[0])]
    chosen = tag or next(iter(quick), None)
    return _locate_timm(architecture, chosen, listed[chosen]) if chosen in quick else None


@cache
def _read_timm_texts() -> dict[Path, str]:
    return {path: path.read_text(encoding="utf-8") for path in sorted((_find_package("timm") / "models").glob("*.py"))}


@cache
def _read_timm_table(path: Path) -> tuple[_ModuleText, dict[str, dict[str, ast.expr]]]:
    """A file of timm, and its unread configurations by architecture and tag."""
    module, found = _ModuleText(_read_timm_texts()[path]), dict[str, dict[str, ast.expr]]()
    for table in module.arguments_of("generate_default_cfgs"):
        for key, value in zip(table.keys, table.values, strict=True):
            if isinstance(key, ast.Constant) and isinstance(key.value, str):
                architecture, _, tag = key.value.partition(".")
                found.setdefault(architecture, {})[tag] = value
    return module, found


@cache
def _read_timm_configurations(path: Path, architecture: str) -> dict[str, dict[str, Any]]:
    """The configurations of one architecture by tag, the default one first."""
    module, table = _read_timm_table(path)
    read = {tag: module.value_of(node) for tag, node in table.get(architecture, {}).items()}
    return _order_tags({tag: value if isinstance(value, dict) else {} for tag, value in read.items()})


def _order_tags(found: Mapping[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """A star behind a tag makes it the default: it then stands first. timm's own order otherwise."""
    starred = [tag for tag in found if tag.endswith("*")]
    trained = [tag for tag, settings in found.items() if _has_weights(settings)]
    first = ["", *starred, *trained]
    order = sorted(found, key=lambda tag: first.index(tag) if tag in first and (tag or "" in trained) else len(first))
    return {tag.rstrip("*"): found[tag] for tag in order}


def _has_weights(settings: Mapping[str, Any]) -> bool:
    return bool(settings.get("url") or settings.get("hf_hub_id") or settings.get("file"))


def _locate_timm(architecture: str, tag: str, settings: Mapping[str, Any]) -> WeightsFile | None:
    if not _has_weights(settings):
        return None
    repo = settings.get("hf_hub_id")
    if repo == "timm/":
        repo += f"{architecture}.{tag}" if tag else architecture
    url = settings.get("url") or ""
    return WeightsFile(repo, safe_name(settings.get("hf_hub_filename") or "pytorch_model.bin"), str(url))


# open_clip


@cache
def open_clip_names() -> frozenset[str]:
    """Names of open_clip's architectures."""
    return frozenset(path.stem for path in (_find_package("open_clip") / "model_configs").glob("*.json"))


def open_clip_settings(name: str) -> dict[str, Any]:
    """The configuration of an architecture, as the library ships it."""
    settings: dict[str, Any] = json.loads(
        (_find_package("open_clip") / "model_configs" / f"{name}.json").read_text("utf-8")
    )
    return settings


@cache
def open_clip_tags(name: str) -> dict[str, WeightsFile]:
    """Where the weights of an architecture lie, by tag."""
    module = _ModuleText((_find_package("open_clip") / "pretrained.py").read_text(encoding="utf-8"))
    base = name.removesuffix("-quickgelu")
    table = module.item("_PRETRAINED", name)
    if table is None and base != name:  # the library lists these once more, in a loop
        listed = module.item("_PRETRAINED", base) or {}
        table = {tag: settings for tag, settings in listed.items() if settings.get("quick_gelu")}
    return {tag: _locate_open_clip(settings) for tag, settings in (table or {}).items()}


def _locate_open_clip(settings: Mapping[str, Any]) -> WeightsFile:
    repo, _, file = (settings.get("hf_hub") or "").rpartition("/")
    file = safe_name(file or "open_clip_pytorch_model.bin")
    return WeightsFile(repo or None, file, settings.get("url") or "", bool(settings.get("quick_gelu")))


# Reading a library's text


@cache
def _find_package(package: str) -> Path:
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise FileNotFoundError(package)
    return Path(next(iter(spec.submodule_search_locations)))


class _ModuleText:
    """A source file whose tables can be read: constants, `dict(...)`, `{**other}`, and calls of its own functions."""

    def __init__(self, text: str) -> None:
        self._tree = ast.parse(text)
        self._functions = {node.name: node for node in self._tree.body if isinstance(node, ast.FunctionDef)}
        self._assigned: dict[str, ast.expr] = {}
        for node in self._tree.body:
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                self._assigned.setdefault(node.targets[0].id, node.value)  # `table = wrapped(table)` leaves the table

    def arguments_of(self, function: str) -> list[ast.Dict]:
        """The tables that a function is called with."""
        calls = [node for node in ast.walk(self._tree) if isinstance(node, ast.Call) and _name_called(node) == function]
        arguments = [
            self._assigned.get(each.id) if isinstance(each, ast.Name) else each for each in _take_first_arguments(calls)
        ]
        return [each for each in arguments if isinstance(each, ast.Dict)]

    def item(self, table: str, key: str) -> dict[str, Any] | None:
        """One entry of a table, the others unread."""
        node = self._assigned.get(table)
        if isinstance(node, ast.Dict):
            for name, value in zip(node.keys, node.values, strict=True):
                if isinstance(name, ast.Constant) and name.value == key:
                    found = self.value_of(value)
                    return found if isinstance(found, dict) else None
        return None

    def value_of(self, node: ast.expr | None, local: Mapping[str, Any] | None = None) -> Any:
        """What an expression is; None where it is something else than those."""
        local = local or {}
        if isinstance(node, ast.Constant):
            return node.value
        if isinstance(node, ast.Tuple | ast.List):
            return [self.value_of(each, local) for each in node.elts]
        if isinstance(node, ast.Dict):
            return self._read_table(zip(node.keys, node.values, strict=True), local)
        if isinstance(node, ast.Name):
            return local[node.id] if node.id in local else self.value_of(self._assigned.get(node.id))
        if isinstance(node, ast.Call):
            return self._read_call(node, local)
        return None

    def _read_table(self, items: Any, local: Mapping[str, Any]) -> dict[str, Any]:
        table: dict[str, Any] = {}
        for key, value in items:
            name: Any = key.value if isinstance(key, ast.Constant) else key
            evaluated = self.value_of(value, local)
            table |= (evaluated if isinstance(evaluated, dict) else {}) if name is None else {name: evaluated}
        return table

    def _read_call(self, node: ast.Call, local: Mapping[str, Any]) -> Any:
        given = self._read_table(((each.arg, each.value) for each in node.keywords), local)
        positional = [self.value_of(each, local) for each in node.args]
        function = _name_called(node)
        if function == "dict":
            return {**(positional[0] if positional and isinstance(positional[0], dict) else {}), **given}
        if function not in self._functions:
            return None
        return self._read_result(self._functions[function], positional, given)

    def _read_result(self, function: ast.FunctionDef, positional: list[Any], given: dict[str, Any]) -> Any:
        names = [each.arg for each in function.args.args]
        defaults = [self.value_of(each) for each in function.args.defaults]
        bound = dict(zip(names[len(names) - len(defaults) :], defaults, strict=True))
        bound |= dict(zip(names, positional, strict=False))
        bound |= {name: value for name, value in given.items() if name in names}
        if function.args.kwarg:
            bound[function.args.kwarg.arg] = {name: value for name, value in given.items() if name not in names}
        returned = [node for node in function.body if isinstance(node, ast.Return)]
        return self.value_of(returned[-1].value, bound) if returned else None


def _take_first_arguments(calls: list[ast.Call]) -> list[ast.expr]:
    return [call.args[0] for call in calls if call.args]


def _name_called(node: ast.Call) -> str:
    return node.func.id if isinstance(node.func, ast.Name) else ""
