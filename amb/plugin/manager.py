"""The plugin manager and the registry: from a name or preset on the command line to a component."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Generic, TypeVar

import pluggy

from amb.api.component import Component
from amb.api.interfaces import Attack, Edit, Method, ModelLoader, Reporter, Suite
from amb.api.spec import Spec, parse_chain, parse_spec
from amb.errors import PluginError, UnknownNameError
from amb.plugin import specs as hookspecs

ENTRY_POINT_GROUP = "amb"
C = TypeVar("C", bound=Component)


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


class Kind(Generic[C]):
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
        self._claim(name, cls, plugin)
        self.classes[name] = cls
        for preset, params in cls.presets.items():
            self._claim(preset, cls, plugin)
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

    def _claim(self, name: str, cls: type[C], plugin: Plugin) -> None:
        if name in self._owners:
            raise PluginError(
                f"The {self.kind} '{name}' is provided twice: by {self._owners[name]} and by {plugin}. "
                f"Uninstall one, or set AMB_DISABLE_PLUGINS={plugin.name}."
            )
        self._owners[name] = plugin


class Registry:
    """Every component of every plugin."""

    def __init__(self) -> None:
        self.methods: Kind[Method] = Kind("method", "methods")
        self.attacks: Kind[Attack] = Kind("attack", "attacks")
        self.edits: Kind[Edit] = Kind("edit", "edits")
        self.suites: Kind[Suite] = Kind("suite", "suites")
        self.loaders: Kind[ModelLoader] = Kind("model loader", "models")
        self.reporters: dict[str, type[Reporter]] = {}

    @property
    def kinds(self) -> dict[str, Kind[Any]]:
        """The kinds by the word that `amb list` uses."""
        return {kind.listing: kind for kind in (self.methods, self.attacks, self.suites, self.loaders)}

    def method(self, text: str, extra: Mapping[str, Any] | None = None) -> Method:
        """The method that a spec text names."""
        return self.methods.create(parse_spec(text), extra)

    def attack_chain(self, text: str) -> tuple[Attack, ...]:
        """The attacks that a chain such as `prune40+finetune` names, in order."""
        return tuple(self.attacks.create(spec) for spec in parse_chain(text))

    def suite(self, text: str) -> Suite:
        """The suite that a spec text names."""
        return self.suites.create(parse_spec(text))

    def loader(self, ref: str) -> tuple[ModelLoader, str]:
        """The loader of a model reference and the rest of the reference after its prefix."""
        prefix, _slash, rest = ref.partition("/")
        if prefix not in self.loaders.classes or not rest:
            known = [f"{name}/{item}" for name, cls in self.loaders.classes.items() for item in cls().names()]
            raise unknown_name("model", ref, known, "`amb list models` shows all")
        return self.loaders.classes[prefix](), rest


class Manager:
    """Loads plugins, calls their hooks. Typed, so that callers never touch pluggy."""

    def __init__(self, plugins: Iterable[tuple[Plugin, EntryPoint]] | None = None) -> None:
        self._pm = pluggy.PluginManager("amb")
        self._pm.add_hookspecs(hookspecs)
        self.plugins: list[Plugin] = []
        self._by_module: dict[int, Plugin] = {}
        disabled = set(filter(None, os.environ.get("AMB_DISABLE_PLUGINS", "").split(",")))
        for plugin, entry_point in find_plugins() if plugins is None else plugins:
            if plugin.name in disabled:
                self.plugins.append(Plugin(plugin.name, plugin.module, plugin.distribution, plugin.version, True))
            else:
                self._load(plugin, entry_point)

    def register(self, module: object, name: str) -> Plugin:
        """Add a plugin by hand, as tests do."""
        plugin = Plugin(name, getattr(module, "__name__", type(module).__name__), "this process", "0")
        self._register(module, plugin)
        self.__dict__.pop("registry", None)  # ask again
        return plugin

    def _load(self, plugin: Plugin, entry_point: EntryPoint) -> None:
        try:
            module = entry_point.load()
        except Exception as error:  # a stranger's module can raise anything
            raise PluginError(
                f"{plugin} cannot be loaded: {type(error).__name__}: {error}. "
                f"Repair or uninstall it, or set AMB_DISABLE_PLUGINS={plugin.name}."
            ) from error
        self._register(module, plugin)

    def _register(self, module: object, plugin: Plugin) -> None:
        try:
            self._pm.register(module, plugin.name)
            self._pm.check_pending()
        except (pluggy.PluginValidationError, ValueError) as error:
            reason = " ".join(str(error).split())
            raise PluginError(
                f"{plugin} does not fit amb's hooks: {reason}. "
                f"See amb/plugin/specs.py, or set AMB_DISABLE_PLUGINS={plugin.name}."
            ) from None
        self._by_module[id(module)] = plugin
        self.plugins.append(plugin)

    @cached_property
    def registry(self) -> Registry:
        """Ask every plugin for its components. Raises PluginError where two collide."""
        registry = Registry()
        for hook, kind in (
            ("amb_register_methods", registry.methods),
            ("amb_register_attacks", registry.attacks),
            ("amb_register_edits", registry.edits),
            ("amb_register_suites", registry.suites),
            ("amb_register_models", registry.loaders),
        ):
            for plugin, classes in self._collect(hook):
                for cls in classes:
                    kind.add(cls, plugin)
        for plugin, classes in self._collect("amb_register_reporters"):
            for cls in classes:
                if cls.name in registry.reporters:
                    raise PluginError(f"{plugin} provides a second reporter called '{cls.name}'. Rename one of them.")
                registry.reporters[cls.name] = cls
        return registry

    def notify(self, hook: str, **arguments: Any) -> list[str]:
        """Call a lifecycle hook; returns the warnings to show, for an observer must never cost a result."""
        warnings = []
        for implementation in getattr(self._pm.hook, hook).get_hookimpls():
            try:
                wanted = {name: arguments[name] for name in implementation.argnames}
                implementation.function(**wanted)
            except Exception as error:
                name = implementation.plugin_name
                warnings.append(f"plugin '{name}' failed in {hook}: {type(error).__name__}: {error}")
        return warnings

    def _collect(self, hook: str) -> list[tuple[Plugin, list[Any]]]:
        found = []
        for implementation in getattr(self._pm.hook, hook).get_hookimpls():
            plugin = self._by_module[id(implementation.plugin)]
            try:
                found.append((plugin, list(implementation.function())))
            except Exception as error:
                raise PluginError(f"{plugin} failed in {hook}: {type(error).__name__}: {error}.") from error
        return found


@cache
def manager() -> Manager:
    """The manager of the installed plugins, loaded at the first call."""
    return Manager()


def find_plugins() -> list[tuple[Plugin, EntryPoint]]:
    """Every installed entry point of the group, by name."""
    found = []
    for entry_point in sorted(entry_points(group=ENTRY_POINT_GROUP), key=lambda each: each.name):
        origin = entry_point.dist
        name, version = (origin.name, origin.version) if origin else ("unknown", "0")
        found.append((Plugin(entry_point.name, entry_point.module, name, version), entry_point))
    return found


def unknown_name(kind: str, name: str, known: Iterable[str], listing: str) -> UnknownNameError:
    """The error for a name that nothing is registered under, with near names."""
    known = sorted(known)
    return UnknownNameError(f"No {kind} is called '{name}'.{near_names(name, known)} {listing} {len(known)}.")


def near_names(name: str, known: Iterable[str]) -> str:
    """` Did you mean ...?`, or nothing where no name is near."""
    from difflib import get_close_matches

    near = get_close_matches(name, list(known), n=3, cutoff=0.5)
    return f" Did you mean {' or '.join(near)}?" if near else ""
