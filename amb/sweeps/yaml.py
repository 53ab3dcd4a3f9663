"""YAML from anybody, read safely: plain values with their lines, other files included, every mistake collected."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple

import yaml

from amb.errors import printable, shortened
from amb.runtime.regular_files import read_file

LARGEST: Final = 2**20
"""Bytes of a file that is still read; a definition has a few thousand."""
MOST_VALUES: Final = 100_000
"""Values in a file, aliases counted as often as they are used."""
MOST_NESTED: Final = 32
"""Lists and mappings inside each other; a definition has five."""
LONGEST_NUMBER: Final = 100
"""Letters of a number; longer ones take long to read, and Python does not write them."""
MOST_FILES: Final = 64
"""Files that one file may include, those of included files among them."""
LONGEST_TEXT: Final = 1000
"""Letters of a problem that are shown; a file may name things of any length."""
_PLAIN: Final = frozenset(f"tag:yaml.org,2002:{name}" for name in ("str", "int", "float", "bool", "null"))


class Problem(NamedTuple):
    """A mistake in a file and where it stands."""

    file: str
    line: int
    text: str

    def __str__(self) -> str:
        text = self.text if len(self.text) <= LONGEST_TEXT else f"{self.text[: LONGEST_TEXT - 3]}..."
        return printable(f"{self.file}:{self.line}: {text}")


@dataclass(frozen=True)
class Value:
    """A plain value, a list of values or a mapping from text to values, with the place it came from."""

    data: Any
    file: str
    line: int

    def problem(self, text: str) -> Problem:
        """A mistake at this place."""
        return Problem(self.file, self.line, text)


class _Refused(Exception):  # noqa: N818 (a problem on its way to the list)
    """Reading a file cannot go on."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(str(problem))
        self.problem = problem


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, which counts while it composes: neither depth nor number of nodes is left to the file."""

    def __init__(self, data: bytes, file: str) -> None:
        super().__init__(data)
        self._file, self._n_nodes, self._depth = file, 0, 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """One node, and those inside it. Raises _Refused."""
        self._n_nodes += 1
        self._depth += 1
        line = self.peek_event().start_mark.line + 1  # type: ignore[no-untyped-call]
        if self._n_nodes > MOST_VALUES:
            raise _Refused(Problem(self._file, line, f"holds more than {MOST_VALUES} values."))
        if self._depth > MOST_NESTED:
            raise _Refused(Problem(self._file, line, f"is nested too deeply: more than {MOST_NESTED} levels."))
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node


@dataclass
class _Reader:
    """Turns the nodes of one file into values."""

    file: str
    problems: list[Problem]
    n_values: int = 0
    inside: list[int] = field(default_factory=list)
    """Nodes that are being read: an alias to one of them has no end."""

    def value(self, node: yaml.Node) -> Value:
        line = node.start_mark.line + 1
        self.n_values += 1
        if self.n_values > MOST_VALUES:
            raise _Refused(Problem(self.file, line, f"holds more than {MOST_VALUES} values, aliases counted."))
        if id(node) in self.inside:
            raise _Refused(Problem(self.file, line, "an alias stands inside what it refers to."))
        self.inside.append(id(node))
        data = self._read_data(node, line)
        self.inside.pop()
        return Value(data, self.file, line)

    def _read_data(self, node: yaml.Node, line: int) -> Any:
        if isinstance(node, yaml.SequenceNode) and node.tag.endswith(":seq"):
            return [self.value(item) for item in node.value]
        if isinstance(node, yaml.MappingNode) and node.tag.endswith(":map"):
            return self._read_mapping(node)
        if isinstance(node, yaml.ScalarNode) and node.tag in _PLAIN:
            return self._read_scalar(node, line)
        if isinstance(node, yaml.ScalarNode) and node.tag.startswith("tag:yaml.org,2002:timestamp"):
            return node.value
        tag = node.tag.replace("tag:yaml.org,2002:", "!!")
        self.problems.append(
            Problem(self.file, line, f"the tag {shortened(tag)} is refused: only plain values are read.")
        )
        return None

    def _read_scalar(self, node: yaml.ScalarNode, line: int) -> Any:
        tag = node.tag.replace("tag:yaml.org,2002:", "!!")
        if tag in {"!!int", "!!float"} and len(node.value) > LONGEST_NUMBER:
            text = f"'{node.value[:40]}...' is a number of more than {LONGEST_NUMBER} letters."
            self.problems.append(Problem(self.file, line, text))
            return None
        try:
            return yaml.SafeLoader("").construct_object(node)
        except (ValueError, KeyError, IndexError, OverflowError):  # `!!int ""`
            self.problems.append(Problem(self.file, line, f"'{node.value[:40]}' cannot be read as {tag}."))
            return None

    def _read_mapping(self, node: yaml.MappingNode) -> dict[str, Value]:
        found: dict[str, Value] = {}
        for key_node, value_node in node.value:
            key, value = self.value(key_node), self.value(value_node)
            if isinstance(key.data, list | dict):
                self.problems.append(key.problem("a list or a mapping cannot be a key."))
                continue
            name = str(key.data)
            if name in found:
                self.problems.append(
                    key.problem(f"'{shortened(name)}' stands here again, after line {found[name].line}.")
                )
            found.setdefault(name, Value(value.data, self.file, key.line))
        return found


def read_yaml(path: Path) -> tuple[Mapping[str, Value], list[Problem]]:
    """The mapping in a file, with what its `include` names underneath; and every mistake found on the way."""
    problems: list[Problem] = []
    try:
        return _Includes(_find_folder(path), problems).read(path, ()), problems
    except _Refused as refused:
        return {}, [*problems, refused.problem]


def _find_folder(path: Path) -> Path:
    """The folder that a file really lies in. Raises _Refused."""
    try:
        return path.resolve().parent
    except (OSError, ValueError, RuntimeError):  # a name that no file can have, or links in a circle
        raise _Refused(Problem(str(path), 1, "cannot be read: it is no file's name, or links in a circle.")) from None


@dataclass
class _Includes:
    """Reads a file over the files that it includes, all of them inside one folder."""

    root: Path
    problems: list[Problem]
    n_files: int = 0

    def read(self, path: Path, above: tuple[Path, ...]) -> dict[str, Value]:
        """One file over those that it includes; its own keys win."""
        self.n_files += 1
        if self.n_files > MOST_FILES:
            raise _Refused(Problem(str(path), 1, f"is the file after the {MOST_FILES} that are read at most."))
        own = _parse_file(path, self.problems)
        included = own.pop("include", None)
        above = (*above, path.resolve())
        found: dict[str, Value] = {}
        for item in _as_list(included) if included else []:
            target = self._find_target(item, path, above)
            if target is not None:
                found |= self.read(target, above)
        return found | own

    def _find_target(self, item: Value, path: Path, above: tuple[Path, ...]) -> Path | None:
        """The file that an `include` names; None where it is refused."""
        fault = self._describe_fault(item.data, path, above)
        if fault:
            self.problems.append(item.problem(fault))
        return None if fault else path.parent / item.data

    def _describe_fault(self, name: Any, path: Path, above: tuple[Path, ...]) -> str | None:
        if not isinstance(name, str):
            return "include names a file, or a list of files."
        try:
            target = (path.parent / name).resolve()
            exists = target.is_file()
        except (OSError, ValueError, RuntimeError):  # a name that no file can have, or links in a circle
            return f"include '{name[:60]}' is no file's name."
        if target in above:
            chain = " -> ".join(each.name for each in (*above[above.index(target) :], target))
            return f"include goes in a circle: {chain}."
        if not target.is_relative_to(self.root):
            return f"include '{name}' lies outside {self.root}, the folder of the first file."
        return None if exists else f"include '{name}' does not exist."


def _parse_file(path: Path, problems: list[Problem]) -> dict[str, Value]:
    reader = _Reader(str(path), problems)
    try:
        data = read_file(path, LARGEST)
    except OSError as error:
        raise _Refused(Problem(str(path), 1, f"cannot be read: {error.strerror or error}.")) from None
    try:
        node = _Loader(data, str(path)).get_single_node()
        value = reader.value(node).data if node else {}
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise _Refused(Problem(str(path), mark.line + 1 if mark else 1, f"is not YAML: {error.problem}.")) from None
    except (yaml.YAMLError, ValueError, OverflowError) as error:  # bytes, escapes or versions that nothing stands for
        raise _Refused(Problem(str(path), 1, f"is not YAML: {' '.join(str(error).split())}.")) from None
    if not isinstance(value, dict):
        raise _Refused(Problem(str(path), 1, "should hold `key: value` lines."))
    return value


def _as_list(value: Value) -> list[Value]:
    return value.data if isinstance(value.data, list) else [value]
