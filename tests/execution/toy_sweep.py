"""A small real sweep that workers of any executor can compute: an installed toy plugin, and what came of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import pytest

from amb.plugin import manager as plugins
from tests.installed import install_plugin

PLUGIN: Final = '''
import os, signal, time
from typing import ClassVar
import amb
from amb.testing.toy import ToyLoader, ToyMethod, ToySuite

class Deadly(amb.Attack):
    """Kills the process that applies it."""
    name: ClassVar[str] = "deadly"
    def apply(self, model, ctx):
        os.kill(os.getpid(), signal.SIGKILL)

class Slow(amb.Attack):
    """Leaves the model as it is, and takes its time."""
    name: ClassVar[str] = "slow"
    seconds: float = 1.0
    """How long."""
    draw: int = 0
    """Another number is another model."""
    def apply(self, model, ctx):
        time.sleep(self.seconds)
        return model.copy()

@amb.hookimpl
def amb_register_suites():
    return [ToySuite]

@amb.hookimpl
def amb_register_models():
    return [ToyLoader]

@amb.hookimpl
def amb_register_methods():
    return [ToyMethod]

@amb.hookimpl
def amb_register_attacks():
    return [Deadly, Slow]
'''
WITNESS: Final = """

from amb.store.store import Store
_make = Store._make

def witness(store, line):
    with open(os.environ.get("WITNESS") or os.path.join(store.location, "..", "steps.log"), "a") as file:
        file.write(line + "\\n")

def make_before_witnesses(self, kind, digest, *others):
    witness(self, f"began {kind}/{digest}")
    entry = _make(self, kind, digest, *others)
    if entry is not None:
        witness(self, f"published {kind}/{digest}")
    return entry

Store._make = make_before_witnesses
"""
"""Goes into every process of a sweep with the toy plugin. Writes down which steps are computed, beside the store or in a file WITNESS."""
SWEEP: Final[Mapping[str, Any]] = {
    "name": "toy",
    "suites": "toy",
    "methods": [{"toy": {"n": [8, 16]}}],
    "attacks": ["prune20", "forge-messages", "slow:seconds=1.5"],
    "seeds": [0, 1],
}


def write_site(folder: Path, more: str = "") -> None:
    """Put the plugin into a folder, installed."""
    (folder / "toy_site.py").write_text(PLUGIN + more)
    install_plugin(folder, "toy-site", {"toy-site": "toy_site"})


def install(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put the plugin where this process and its workers find it."""
    write_site(folder)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setenv("PYTHONPATH", str(folder), prepend=":")
    monkeypatch.setenv("AMB_DISABLE_PLUGINS", "mlflow")
    plugins.manager.cache_clear()


def summarise(document: Mapping[str, Any]) -> list[Any]:
    """Of every cell all that is not a time: digests of models, keys and evidence, verdicts, utility."""
    measured = ("seconds", "peak_memory_mib", "cached", "run")
    return sorted(
        ({key: value for key, value in cell.items() if key not in measured} for cell in document["cells"]), key=str
    )


def wait_for(condition: Callable[[], bool], seconds: float = 120.0) -> None:
    """Wait until it holds, or fail."""
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it did not come to that"
        time.sleep(0.02)


def n_finished(output: Path) -> int:
    """Suspects that a store has evidence of."""
    return len(list(output.glob("store/evidence/*/record.json")))


def find_repeated(log: Path) -> list[str]:
    """Steps that were begun, or finished, after they had been finished, in what a witness wrote."""
    finished, repeated = set[str](), list[str]()
    for line in log.read_text().splitlines():
        did, _, step = line.partition(" ")
        if step in finished:
            repeated.append(step)
        if did == "published":
            finished.add(step)
    return repeated
