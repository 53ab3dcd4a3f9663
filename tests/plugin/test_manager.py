"""Plugins: found, refused and switched off, each with a message that names them."""

from __future__ import annotations

from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any, ClassVar

import pytest

import amb
from amb.errors import PluginError, UnknownNameError
from amb.plugin.manager import Manager
from amb.plugin.registry import Plugin


def entry(name: str, module: str) -> tuple[Plugin, EntryPoint]:
    return Plugin(name, module, f"{name}-dist", "1.2"), EntryPoint(name, module, "amb")


@pytest.fixture
def write_plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(tmp_path)

    def write(name: str, text: str) -> tuple[Plugin, EntryPoint]:
        (tmp_path / f"{name}.py").write_text(text)
        return entry(name, name)

    return write


def test_installed_plugins_are_found_by_entry_points() -> None:
    manager = Manager()
    assert {plugin.name for plugin in manager.plugins} >= {
        "activemark",
        "attacks",
        "formats",
        "results",
        "mlflow",
        "models",
        "suites",
    }
    assert {plugin.distribution for plugin in manager.plugins} == {"activemark-bench"}


def test_a_plugin_that_cannot_be_imported_is_named(write_plugin: Any) -> None:
    broken = write_plugin("broken_plugin", "import a_package_that_is_not_there")
    with pytest.raises(PluginError, match=r"'broken_plugin' \(broken_plugin, from broken_plugin-dist 1.2\).*not_there"):
        Manager([broken])


def test_a_misspelt_hook_is_named(write_plugin: Any) -> None:
    misspelt = write_plugin("misspelt", "import amb\n@amb.hookimpl\ndef amb_register_method():\n    return []\n")
    with pytest.raises(PluginError, match="misspelt.*amb_register_method"):
        Manager([misspelt])


def test_a_hook_that_raises_is_named(write_plugin: Any) -> None:
    raising = write_plugin("raising", "import amb\n@amb.hookimpl\ndef amb_register_methods():\n    return 1 / 0\n")
    with pytest.raises(PluginError, match="raising-dist.*amb_register_methods: ZeroDivisionError"):
        _ = Manager([raising]).registry


SUITE = """
import amb
from amb.testing.toy import ToySuite
class Mine(ToySuite):
    name = "twice"
@amb.hookimpl
def amb_register_suites():
    return [Mine]
"""


def test_two_plugins_with_one_name_are_both_named(write_plugin: Any) -> None:
    pair = [write_plugin("first", SUITE), write_plugin("second", SUITE)]
    with pytest.raises(PluginError, match="suite 'twice' is provided twice.*first-dist.*second-dist"):
        _ = Manager(pair).registry


def test_a_component_without_a_name_is_refused(write_plugin: Any) -> None:
    nameless = write_plugin("nameless", SUITE.replace('    name = "twice"', "    name = None"))
    with pytest.raises(PluginError, match="without a name"):
        _ = Manager([nameless]).registry


def test_plugins_are_switched_off_by_the_environment(write_plugin: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AMB_DISABLE_PLUGINS", "broken_plugin,other")
    manager = Manager([write_plugin("broken_plugin", "1 / 0")])
    assert [plugin.disabled for plugin in manager.plugins] == [True]


def test_unknown_names_come_with_neighbours(manager: Manager) -> None:
    with pytest.raises(
        UnknownNameError, match=r"No attack is called 'prun40'. Did you mean prune40.*`amb list attacks`"
    ):
        manager.registry.attack_chain("prun40")
    with pytest.raises(UnknownNameError, match=r"No model is called 'tiny/ownr'. Did you mean tiny/owner"):
        amb.load_model("tiny/ownr")
    with pytest.raises(UnknownNameError, match="No model is called 'nowhere'"):
        amb.load_model("nowhere")


def test_presets_set_parameters_and_give_way_to_the_users(manager: Manager) -> None:
    (prune,) = manager.registry.attack_chain("prune40:scope=layer")
    assert prune.canonical() == "prune:amount=0.4,scope=layer"
    (prune,) = manager.registry.attack_chain("prune40:amount=0.1")
    assert prune.canonical() == "prune:amount=0.1"


class Noisy:
    """An observer that raises."""

    __name__: ClassVar[str] = "noisy"

    @amb.hookimpl
    def amb_run_started(self, run: Any) -> None:
        raise OSError("disk gone")


def test_an_observer_that_raises_becomes_a_warning() -> None:
    manager = Manager([])
    manager.register(Noisy(), "noisy")
    assert manager.notify("amb_run_started", run=None) == [
        "plugin 'noisy' failed in amb_run_started: OSError: disk gone"
    ]
