"""Sweep files: YAML in which lists are axes. Everything is checked, and every mistake named with its line."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import product
from math import prod
from pathlib import Path
from typing import Any, Final

from amb.api.component import Component, value_text
from amb.api.interfaces import Suite
from amb.api.spec import SPEC_VALUE, parse_chain, parse_spec
from amb.errors import UnknownNameError, UsageError, near_names, shortened
from amb.execution.planning import (
    MOST_COMPARED,
    MOST_NEGATIVES,
    canonical_chain,
    is_forgery,
    n_claimed,
    n_suspects,
)
from amb.plugin.registry import Catalog, Registry
from amb.sweeps.definition import Sweep
from amb.sweeps.yaml import LONGEST_NUMBER, MOST_NESTED, Problem, Value, read_yaml

KEYS: Final = ("include", "name", "suites", "model", "methods", "attacks", "seeds", "tau", "alpha", "negatives")
MOST_CELLS: Final = 2_000_000
"""Nobody means more; they are counted before the first of them is spelled."""
MOST_SHOWN: Final = 100
"""Mistakes that are shown, and that near names are looked for."""
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def read_sweep(path: Path, registry: Registry) -> Sweep:
    """Read and check a sweep file. Raises UsageError with every mistake and its line."""
    values, problems = read_yaml(path)
    checker = _Checker(registry, str(path), problems)
    sweep = checker.sweep(values, path.stem) if values or not problems else None
    if problems or sweep is None:
        ordered = sorted(set(problems), key=lambda problem: (problem.file, problem.line))
        count = "One mistake" if len(ordered) == 1 else f"{len(ordered):,} mistakes"
        raise UsageError("\n".join([f"{count} in {path}, so nothing was run:", *_list_first(list(map(str, ordered)))]))
    return sweep


def _list_first(mistakes: list[str]) -> list[str]:
    """The first mistakes, and how many more there are."""
    rest = len(mistakes) - MOST_SHOWN
    return mistakes if rest <= 0 else [*mistakes[:MOST_SHOWN], f"... and {rest:,} more."]


def check_sweep(definition: Mapping[str, Any], registry: Registry) -> Sweep:
    """The sweep of a mapping of the form that files have. Raises UsageError with every mistake."""
    place = "the sweep's definition"
    checker = _Checker(registry, place, [])
    values = {str(key): _to_value(value, place, MOST_NESTED) for key, value in definition.items()}
    sweep = checker.sweep(values, "sweep")
    if checker.problems or sweep is None:
        said = "\n".join(_list_first(list(dict.fromkeys(problem.text for problem in checker.problems))))
        raise UsageError(f"The sweep cannot be run as it is defined:\n{said}")
    return sweep


def _to_value(data: Any, place: str, levels: int) -> Value:
    """Plain data as the reader of files gives it, with as many levels as these. Raises UsageError."""
    if levels == 0:
        raise UsageError(f"The sweep is nested too deeply: more than {MOST_NESTED} levels.")
    if isinstance(data, Mapping):
        return Value({str(key): _to_value(value, place, levels - 1) for key, value in data.items()}, place, 1)
    if isinstance(data, list | tuple):
        return Value([_to_value(item, place, levels - 1) for item in data], place, 1)
    if isinstance(data, int) and data.bit_length() > LONGEST_NUMBER:
        raise UsageError(f"The sweep holds a number of {data.bit_length():,} bits; nothing here is so large.")
    return Value(data, place, 1)


@dataclass(frozen=True)
class Link:
    """A component with the values of each of its parameters: one link of a chain."""

    name: str
    axes: Mapping[str, list[Value]] = field(default_factory=dict)

    @property
    def n(self) -> int:
        """How many specs its axes span."""
        return prod(len(values) for values in self.axes.values())

    def specs(self) -> Iterator[str]:
        """The specs that the axes span, the last axis running fastest."""
        for values in product(*self.axes.values()):
            yield self.spec(dict(zip(self.axes, values, strict=True)))

    def probes(self) -> Iterator[tuple[str, Value | None]]:
        """Every value once, beside the first of the others, with the value that is being tried."""
        first = {axis: values[0] for axis, values in self.axes.items()}
        yield self.spec(first), None
        for axis, values in self.axes.items():
            yield from ((self.spec({**first, axis: value}), value) for value in values[1:])

    def spec(self, params: Mapping[str, Value]) -> str:
        """The spec text of one choice of parameters."""
        pairs = ",".join(f"{key}={value_text(value.data)}" for key, value in params.items())
        return f"{self.name}:{pairs}" if pairs else self.name


@dataclass(frozen=True)
class Entry:
    """One entry of `methods` or `attacks`: a chain of links, in a list of links or in one text."""

    links: tuple[Link, ...]
    place: Value

    @property
    def n(self) -> int:
        """How many chains its links span."""
        return prod(link.n for link in self.links)

    def forges(self, registry: Registry) -> bool:
        """Whether its chains end in a forgery."""
        return is_forgery(registry, "+".join(next(link.specs()) for link in self.links))

    def specs(self) -> Iterator[str]:
        """Every chain that the axes of the links span."""
        if len(self.links) == 1:  # a product would first spell its only factor
            return self.links[0].specs()
        return ("+".join(chain) for chain in product(*(list(link.specs()) for link in self.links)))


@dataclass
class _Checker:
    """Checks the values of a file and collects what is wrong with them."""

    registry: Registry
    file: str
    problems: list[Problem]

    def sweep(self, values: Mapping[str, Value], stem: str) -> Sweep | None:
        """The sweep; None where anything is wrong."""
        for key in values:
            if key not in KEYS:
                hint = near_names(key, KEYS) if len(self.problems) < MOST_SHOWN else ""
                text = f"there is no key '{shortened(key)}'.{hint} Keys: {', '.join(KEYS)}."
                self.problems.append(values[key].problem(text))
        suites = self._check_texts(values, "suites", self.registry.suite)
        methods = self._check_entries(values, "methods", self.registry.methods, required=True)
        attacks = self._check_entries(values, "attacks", self.registry.attacks)
        seeds = self._check_seeds(values)
        name = self._check_scalar(
            values, "name", stem, lambda it: bool(_NAME.fullmatch(it)), "1 to 64 letters, digits, . _ -"
        )
        model = self._check_scalar(
            values, "model", None, lambda it: bool(self.registry.loader(it)), "a model reference"
        )
        tau = self._check_scalar(
            values, "tau", None, lambda it: _is_number(it, int) and it >= 0, "a whole number, 0 or more"
        )
        alpha = self._check_scalar(
            values, "alpha", 0.05, lambda it: _is_number(it, float) and 0 < it < 1, "a number between 0 and 1"
        )
        negatives = self._check_scalar(
            values,
            "negatives",
            0,
            lambda it: _is_number(it, int) and 0 <= it <= MOST_NEGATIVES,
            "a whole number, 0 to 100000",
        )
        if self.problems or self._has_too_many(suites, methods, attacks, seeds, negatives):
            return None
        spelled = [self._spell_entries(entries, kind) for entries, kind in ((methods, "methods"), (attacks, "attacks"))]
        return Sweep(name, tuple(suites), spelled[0], spelled[1], tuple(seeds), model, tau, alpha, negatives)

    # Plain lists

    def _list_items(self, values: Mapping[str, Value], key: str, *, required: bool = False) -> list[Value]:
        """What stands under a key; one item needs no list."""
        if key not in values:
            if required:
                self.problems.append(Problem(self.file, 1, f"'{key}' is missing: there is nothing to run."))
            return []
        value = values[key]
        items = value.data if isinstance(value.data, list) else [value]
        if not items or value.data is None:
            self.problems.append(
                value.problem(f"{key} is empty, so there is nothing to run. Name one, or drop the key.")
            )
            return []
        return items

    def _check_texts(self, values: Mapping[str, Value], key: str, check: Callable[[str], Any]) -> list[str]:
        items = self._list_items(values, key, required=True)
        for item in items:
            if not isinstance(item.data, str):
                self.problems.append(item.problem(f"an entry of {key} is a name, not {_show_value(item)}."))
            else:
                self._try_check(partial(check, item.data), item)
        self._refuse_repeats(items, key)
        return [item.data for item in items]

    def _check_seeds(self, values: Mapping[str, Value]) -> list[int]:
        items = self._list_items(values, "seeds") if "seeds" in values else [Value(0, self.file, 1)]
        for item in items:
            if not _is_number(item.data, int) or item.data < 0:
                self.problems.append(item.problem(f"a seed is a whole number, 0 or more, not {_show_value(item)}."))
        self._refuse_repeats(items, "seeds")
        return [item.data for item in items]

    def _refuse_repeats(self, items: list[Value], key: str) -> None:
        seen: dict[str, Value] = {}
        for item in items:
            text = repr(item.data)
            if text in seen:
                self.problems.append(
                    item.problem(f"{key} gives {_show_value(item)} again, after line {seen[text].line}.")
                )
            seen.setdefault(text, item)

    def _check_scalar(
        self, values: Mapping[str, Value], key: str, default: Any, fits: Callable[[Any], bool], form: str
    ) -> Any:
        value = values.get(key, Value(default, self.file, 1))
        if value.data is None and key not in values:
            return None
        try:
            good = fits(value.data)
        except UsageError as error:
            self.problems.append(value.problem(str(error)))
            return default
        except (TypeError, AttributeError):  # a list where a text belongs
            good = False
        if not good:
            self.problems.append(value.problem(f"{key} is {form}, not {_show_value(value)}."))
        return value.data

    # Components and their axes

    def _check_entries(
        self, values: Mapping[str, Value], key: str, kind: Catalog[Any], *, required: bool = False
    ) -> list[Entry]:
        found = []
        for item in self._list_items(values, key, required=required):
            before = len(self.problems)
            chain = item.data if isinstance(item.data, list) and key == "attacks" else [item]
            links = tuple(link for part in chain for link in self._check_links(part, key, kind))
            if len(self.problems) == before:
                found.append(Entry(links, item))
        return found

    def _check_links(self, value: Value, key: str, kind: Catalog[Any]) -> list[Link]:
        """The links that an entry names, each checked."""
        data = value.data
        if isinstance(data, str):
            self._try_check(partial(_create_chain, kind, data, key), value)
            return [Link(data)]
        if not isinstance(data, dict) or len(data) != 1:
            form = f"a spec such as {kind.names()[0]}, or `name: {{parameter: value or list}}`"
            self.problems.append(value.problem(f"an entry of {key} is {form}, not {_show_value(value)}."))
            return []
        ((name, params),) = data.items()
        if not isinstance(params.data, dict):
            self.problems.append(
                params.problem(f"{name} takes {{parameter: value or list}}, not {_show_value(params)}.")
            )
            return []
        link = Link(name, {axis: self._check_axis(axis, each) for axis, each in params.data.items()})
        if link.n:
            self._check_link(link, value, kind)
        return [link]

    def _check_axis(self, name: str, value: Value) -> list[Value]:
        items: list[Value] = value.data if isinstance(value.data, list) else [value]
        if not items:
            self.problems.append(value.problem(f"axis {name} is empty, and so is its product with the others."))
        for item in items:
            if isinstance(item.data, list | dict) or item.data is None:
                self.problems.append(item.problem(f"axis {name} takes plain values, not {_show_value(item)}."))
                return []
            if not SPEC_VALUE.fullmatch(value_text(item.data)):
                self.problems.append(
                    item.problem(f"axis {name}: {_show_value(item)} has a space or one of : = , + in it.")
                )
                return []
        self._refuse_repeats(items, f"axis {name}")
        return items

    def _check_link(self, link: Link, place: Value, kind: Catalog[Component]) -> None:
        for text, value in link.probes():
            if not self._try_check(partial(_create_component, kind, text), value or place) and value is None:
                return  # the others would only say the same again

    def _try_check(self, check: Callable[[], Any], place: Value) -> bool:
        try:
            check()
        except UnknownNameError as error:  # near names of thousands would take a minute
            self.problems.append(place.problem(str(error) if len(self.problems) < MOST_SHOWN else error.text))
            return False
        except UsageError as error:
            self.problems.append(place.problem(str(error)))
            return False
        return True

    # The product

    def _has_too_many(
        self, suites: list[str], methods: list[Entry], attacks: list[Entry], seeds: list[int], negatives: int
    ) -> bool:
        suspects = sum(self._count_suspects(self.registry.suite(suite), attacks, negatives) for suite in suites)
        n = suspects * sum(entry.n for entry in methods) * len(seeds)
        if n > MOST_CELLS:
            self.problems.append(Problem(self.file, 1, f"asks for {n:,} cells; more than {MOST_CELLS:,} are refused."))
        return n > MOST_CELLS

    def _count_suspects(self, suite: Suite, attacks: list[Entry], negatives: int) -> int:
        """Suspects for each method, counted without spelling the axes out."""
        of_each = [n_claimed(suite) if entry.forges(self.registry) else 1 for entry in attacks]
        n_attacked = sum(entry.n * n for entry, n in zip(attacks, of_each, strict=True))
        return n_suspects(self.registry, suite, (), negatives) + n_attacked

    def _spell_entries(self, entries: list[Entry], key: str) -> tuple[str, ...]:
        """Every spec of the entries; two that name the same component are a mistake."""
        spelled = [(text, entry.place) for entry in entries for text in entry.specs()]
        seen: dict[str, tuple[str, Value]] = {}
        for text, place in spelled if len(spelled) <= MOST_COMPARED else []:
            canonical = self._find_canonical(text, key)
            if canonical in seen:
                other, line = seen[canonical][0], seen[canonical][1].line
                self.problems.append(place.problem(f"{key} gives {text} again: it is {other} of line {line}."))
            seen.setdefault(canonical, (text, place))
        return tuple(text for text, _ in spelled)

    def _find_canonical(self, text: str, key: str) -> str:
        if key == "methods":
            return self.registry.method(text).canonical()
        return canonical_chain(self.registry.attack_chain(text)) or "none"


def _create_component(kind: Catalog[Component], text: str) -> Component:
    return kind.create(parse_spec(text))


def _create_chain(kind: Catalog[Component], text: str, key: str) -> list[Component]:
    return [kind.create(spec) for spec in (parse_chain(text) if key == "attacks" else (parse_spec(text),))]


def _is_number(value: Any, kind: type) -> bool:
    """Whether a value is a number of a kind; YAML's yes and no are none."""
    return isinstance(value, (int, float) if kind is float else kind) and not isinstance(value, bool)


def _show_value(value: Value) -> str:
    """A value as a message quotes it."""
    if isinstance(value.data, list | dict):
        return "a list" if isinstance(value.data, list) else "a mapping"
    text = "nothing" if value.data is None else value_text(value.data)
    return text if len(text) <= 60 else f"{text[:57]}..."
