"""What MLflow is told of a run beside its cells, as a value: made of a run that goes on, or of what one left behind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

from amb.api.component import value_text
from amb.results.run_records import RunRecord, parse_run

if TYPE_CHECKING:
    from amb.api.interfaces import Method
    from amb.api.run import Run
    from amb.plugin.registry import Registry

_SHOWN: Final = 10
"""Letters of a parameter that the parallel coordinates of MLflow 3.17 show."""


@dataclass(frozen=True)
class MethodFacts:
    """A method as MLflow hears of it."""

    spec: str
    """Canonical."""
    name: str
    params: Mapping[str, Any]

    def spell(self, param: str) -> str:
        """A parameter's value as a spec spells it."""
        return value_text(self.params.get(param))


@dataclass(frozen=True)
class TrackedRun:
    """A run and its methods."""

    facts: RunRecord
    methods: tuple[MethodFacts, ...]

    def method(self, spec: str) -> MethodFacts:
        """The method of a canonical spec."""
        return next((each for each in self.methods if each.spec == spec), MethodFacts(spec, spec, {}))

    def label(self, spec: str) -> str:
        """A short name for one of its methods."""
        return self._labels[spec]

    @cached_property
    def _labels(self) -> Mapping[str, str]:
        return labels(self.methods)

    @property
    def precision(self) -> str:
        """Of the models' arithmetic; results of before it was recorded have fp32."""
        return str((self.facts.compute or {}).get("precision", "fp32"))


def describe_method(method: Method) -> MethodFacts:
    """A component's facts."""
    return MethodFacts(method.canonical(), method.name, method.model_dump(mode="json"))


def describe_run(run: Run) -> TrackedRun:
    """A run that goes on."""
    from amb.results.document import document

    return TrackedRun(parse_run(document(run)["run"]), tuple(map(describe_method, run.plan.methods)))


def describe_stored(facts: Mapping[str, Any], registry: Registry) -> TrackedRun:
    """A run as it lies in an output folder."""
    run = parse_run(facts)
    return TrackedRun(run, tuple(_find_method(spec, registry) for spec in run.methods))


def _find_method(spec: str, registry: Registry) -> MethodFacts:
    """A method by its spec; where its plugin is not installed, what the spec says itself."""
    from amb.api.spec import parse_spec
    from amb.errors import UsageError

    try:
        found = describe_method(registry.method(spec))
        return MethodFacts(spec, found.name, found.params)
    except UsageError:
        pass
    try:
        parsed = parse_spec(spec)
    except UsageError:
        return MethodFacts(spec, spec, {})
    return MethodFacts(spec, parsed.name, parsed.params)


def labels(methods: Sequence[MethodFacts]) -> dict[str, str]:
    """A short name for each canonical method: its name, and the parameters in which its namesakes differ.

    Names that MLflow's comparison would show as the same ten letters are numbered.
    """
    named = _name_methods(methods)
    starts = [name[:_SHOWN] for name in named.values()]
    return {
        spec: f"{number} {name}" if starts.count(name[:_SHOWN]) > 1 else name
        for number, (spec, name) in enumerate(named.items(), 1)
    }


def _name_methods(methods: Sequence[MethodFacts]) -> dict[str, str]:
    found = {}
    for method in methods:
        namesakes = [each for each in methods if each.name == method.name]
        own = ",".join(f"{name}={method.spell(name)}" for name in varied(namesakes))
        found[method.spec] = f"{method.name} {own}" if own else method.name
    return found


def varied(methods: Sequence[MethodFacts]) -> list[str]:
    """The parameters in which methods of one name differ."""
    names = dict.fromkeys(name for method in methods for name in method.params)
    return [name for name in names if len({method.spell(name) for method in methods}) > 1]
