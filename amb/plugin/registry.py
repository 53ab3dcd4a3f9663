"""The registry: from a name or preset on the command line to a component."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, Generic, TypeVar
from unicodedata import category

from amb.api.component import Component, parameter_rows
from amb.api.executors import Executor
from amb.api.interfaces import Attack, Edit, Method, ModelLoader, Reporter, Suite
from amb.api.spec import Spec, parse_chain, parse_spec
from amb.api.types import LISTINGS
from amb.errors import PluginError, UsageError, printable, shortened, unknown_name

C = TypeVar("C", bound=Component)
LONGEST_REFERENCE: Final = 1024
"""Letters of a model reference; it may be a path."""
MOST_CHAINS: Final = 2**15
"""Chains of attacks that are kept as made: of one, planning asks five times. A component does not change."""


@dataclass(frozen=True)
class Plugin:
    """A plugin as it was found."""

    name: str
    module: str
    distribution: str
    version: str
    disabled: bool = False

    def __str__(self) -> str:
        return f"plugin '{self.name}' ({self.module}, from {self.distribution} {self.version})"


class Catalog(Generic[C]):
    """The registered components of one kind, by name and by preset."""

    def __init__(self, kind: str, listing: str) -> None:
        self.kind = kind
        self.listing = listing
        self.classes: dict[str, type[C]] = {}
        self.presets: dict[str, tuple[type[C], Mapping[str, Any]]] = {}
        self._owners: dict[str, Plugin] = {}

    def add(self, cls: type[C], plugin: Plugin) -> None:
        """Register a class and its presets; raises PluginError where a name is missing or taken."""
        if not (isinstance(cls, type) and issubclass(cls, Component)):
            raise PluginError(f"{plugin} registers {cls!r} as a {self.kind}, which is no amb component class.")
        name = getattr(cls, "name", None)
        if not isinstance(name, str) or not name:
            raise PluginError(f"{plugin} registers the {self.kind} {cls.__qualname__} without a name. Set `name`.")
        self._claim_name(name, cls, plugin)
        self.classes[name] = cls
        for preset, params in cls.presets.items():
            self._claim_name(preset, cls, plugin)
            self.presets[preset] = (cls, params)

    def names(self) -> list[str]:
        """Every name and preset, sorted."""
        return sorted([*self.classes, *self.presets])

    def plugin_of(self, name: str) -> Plugin:
        """Which plugin registered a name."""
        return self._owners[name]

    def create(self, spec: Spec, extra: Mapping[str, Any] | None = None) -> C:
        """The component that a spec names, presets expanded. Raises UnknownNameError, BadParamsError."""
        cls, preset = self.find(spec.name)
        return cls.create({**preset, **spec.params, **(extra or {})})

    def find(self, name: str) -> tuple[type[C], Mapping[str, Any]]:
        """The class behind a name and the parameters its preset sets. Raises UnknownNameError."""
        if name in self.presets:
            return self.presets[name]
        if name not in self.classes:
            raise unknown_name(self.kind, name, self.names(), f"`amb list {self.listing}` shows all")
        return self.classes[name], {}

    def _claim_name(self, name: str, cls: type[C], plugin: Plugin) -> None:
        if name in self._owners:
            raise PluginError(
                f"The {self.kind} '{name}' is provided twice: by {self._owners[name]} and by {plugin}. "
                f"Uninstall one, or set AMB_DISABLE_PLUGINS={plugin.name}."
            )
        self._owners[name] = plugin


class Registry:
    """Every component of every plugin."""

    def __init__(self) -> None:
        self.methods: Catalog[Method] = Catalog("method", "methods")
        self.attacks: Catalog[Attack] = Catalog("attack", "attacks")
        self.edits: Catalog[Edit] = Catalog("edit", "edits")
        self.suites: Catalog[Suite] = Catalog("suite", "suites")
        self.loaders: Catalog[ModelLoader] = Catalog("model loader", "models")
        self.executors: Catalog[Executor] = Catalog("executor", "executors")
        self.reporters: dict[str, type[Reporter]] = {}
        self._create_chain = lru_cache(MOST_CHAINS)(self._create_chain_anew)

    @property
    def kinds(self) -> dict[str, Catalog[Any]]:
        """The kinds by the word that `amb list` uses."""
        found = {kind.listing: kind for kind in (self.methods, self.attacks, self.suites, self.loaders, self.executors)}
        return {listing: found[listing] for listing in LISTINGS}

    def method(self, text: str | Method, extra: Mapping[str, Any] | None = None) -> Method:
        """The method that a spec text names; a component of one's own as it is, with further parameters."""
        if isinstance(text, Method):
            return type(text).create({**text.model_dump(), **extra}) if extra else text
        return self.methods.create(parse_spec(text), extra)

    def attack_chain(self, text: str | Attack) -> tuple[Attack, ...]:
        """The attacks that a chain such as `prune40+finetune` names, in order; a component of one's own as it is."""
        if isinstance(text, Attack):
            return (text,)
        return self._create_chain(text)

    def _create_chain_anew(self, text: str) -> tuple[Attack, ...]:
        return tuple(self.attacks.create(spec) for spec in parse_chain(text))

    def describe_attack(self, text: str) -> Mapping[str, str] | None:
        """What an attack says of itself, by topic, as `DescribeAttack` has it; None where no plugin provides it."""
        try:
            spec = parse_spec(text)
            cls, _ = self.attacks.find(spec.name)
        except UsageError:
            return None
        takes = "; ".join(f"{row['parameter']} = {row['default']}: {row['help']}" for row in parameter_rows(cls))
        about = {"": cls.__doc__ or "", "source": cls.source, "parameters and defaults": takes, "thief": cls.thief}
        try:
            return {**about, "knows": self.attacks.create(spec).knows}
        except UsageError:
            return about

    def suite(self, text: str | Suite) -> Suite:
        """The suite that a spec text names; a component of one's own as it is."""
        return text if isinstance(text, Suite) else self.suites.create(parse_spec(text))

    def executor(self, text: str | Executor, extra: Mapping[str, Any] | None = None) -> Executor:
        """The executor that a spec text names, with further parameters; one of one's own as it is."""
        return text if isinstance(text, Executor) else self.executors.create(parse_spec(text), extra)

    def loader(self, ref: str) -> tuple[ModelLoader, str]:
        """The loader of a model reference and the rest after its prefix. Raises UnknownNameError, UsageError."""
        _check_reference(ref)
        prefix, _slash, rest = ref.partition("/")
        if prefix not in self.loaders.classes or not rest:
            known = [f"{name}/{item}" for name, cls in self.loaders.classes.items() for item in cls().names()]
            raise unknown_name("model", ref, known, "`amb list models` shows all")
        return self.loaders.classes[prefix](), rest


def _check_reference(ref: str) -> None:
    """Raises UsageError for what can name no model anywhere: too long, with control characters, or no text at all."""
    if len(ref) > LONGEST_REFERENCE:
        raise UsageError(
            f"A model reference has at most {LONGEST_REFERENCE} letters, and '{shortened(ref)}' has {len(ref):,}."
        )
    if any(category(letter) in {"Cc", "Cs"} for letter in ref):
        raise UsageError(
            f"The model reference '{printable(ref)}' has a control character in it, or one that is no text."
        )
