"""The plugin manager and the registry: from a name or preset on the command line to a component."""

from __future__ import annotations

import os
from collections.abc import Iterable
from functools import cache, cached_property
from importlib.metadata import Distribution, EntryPoint, entry_points
from typing import Any

import pluggy

from amb.errors import AmbError, PluginError, StoreError
from amb.plugin import specs as hookspecs
from amb.plugin.registry import Plugin, Registry
from amb.runtime.guard import guard_process

ENTRY_POINT_GROUP = "amb"


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
                self._load_plugin(plugin, entry_point)

    def register(self, module: object, name: str) -> Plugin:
        """Add a plugin by hand, as tests do."""
        plugin = Plugin(name, getattr(module, "__name__", type(module).__name__), "this process", "0")
        self._register_module(module, plugin)
        self.__dict__.pop("registry", None)  # ask again
        return plugin

    def _load_plugin(self, plugin: Plugin, entry_point: EntryPoint) -> None:
        try:
            with guard_process():
                module = entry_point.load()
        except Exception as error:  # a stranger's module can raise anything
            raise PluginError(
                f"{plugin} cannot be loaded: {type(error).__name__}: {error}. "
                f"Repair or uninstall it, or set AMB_DISABLE_PLUGINS={plugin.name}."
            ) from error
        self._register_module(module, plugin)

    def _register_module(self, module: object, plugin: Plugin) -> None:
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
            ("amb_register_executors", registry.executors),
        ):
            for plugin, classes in self._collect_components(hook):
                for cls in classes:
                    kind.add(cls, plugin)
        for plugin, classes in self._collect_components("amb_register_reporters"):
            for cls in classes:
                if cls.name in registry.reporters:
                    raise PluginError(f"{plugin} provides a second reporter called '{cls.name}'. Rename one of them.")
                registry.reporters[cls.name] = cls
        return registry

    def notify(self, hook: str, **arguments: Any) -> list[str]:
        """Call a lifecycle hook; returns the warnings to show, for an observer must never cost a result.

        Raises StoreError: results that cannot be kept end a run.
        """
        warnings = []
        for implementation in reversed(
            getattr(self._pm.hook, hook).get_hookimpls()
        ):  # pluggy's order: `trylast` is last
            try:
                wanted = {name: arguments[name] for name in implementation.argnames}
                with guard_process():
                    implementation.function(**wanted)
            except StoreError:
                raise
            except AmbError as error:  # its text is for the user
                warnings.append(f"plugin '{implementation.plugin_name}': {error}")
            except Exception as error:
                name = implementation.plugin_name
                warnings.append(f"plugin '{name}' failed in {hook}: {type(error).__name__}: {error}")
        return warnings

    def _collect_components(self, hook: str) -> list[tuple[Plugin, list[Any]]]:
        found = []
        for implementation in getattr(self._pm.hook, hook).get_hookimpls():
            plugin = self._by_module[id(implementation.plugin)]
            try:
                with guard_process():
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
    describe = cache(_describe_distribution)  # one of them may bring many plugins, and reads its file at every question
    return [
        (Plugin(each.name, each.module, *describe(each.dist)), each)
        for each in sorted(entry_points(group=ENTRY_POINT_GROUP), key=lambda each: each.name)
    ]


def _describe_distribution(origin: Distribution | None) -> tuple[str, str]:
    """Name and version of what an entry point was installed with."""
    said = origin.metadata if origin else {"Name": "unknown", "Version": "0"}
    return said["Name"], said["Version"]
