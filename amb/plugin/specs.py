"""Every hook that a plugin may implement.

A plugin is a module named in the `amb` entry-point group. Its hook implementations are functions marked with
`amb.hookimpl`. They may take fewer arguments than listed here, so hooks can grow; an argument with a default
value in an implementation is never passed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from amb.api.executors import Executor
    from amb.api.interfaces import Attack, Edit, Method, ModelLoader, Reporter, Suite
    from amb.api.records import Cell, CellResult
    from amb.api.run import Run

hookspec = pluggy.HookspecMarker("amb")
hookimpl = pluggy.HookimplMarker("amb")
"""Marks a function of a plugin as the implementation of the hook that it is named after."""


# Registration: called once, when a component is first looked up. Import torch inside the classes' methods.


@hookspec
def amb_register_methods() -> Sequence[type[Method]]:  # type: ignore[empty-body]
    """Return the ownership-verification methods of this plugin."""


@hookspec
def amb_register_attacks() -> Sequence[type[Attack]]:  # type: ignore[empty-body]
    """Return the attacks of this plugin."""


@hookspec
def amb_register_edits() -> Sequence[type[Edit]]:  # type: ignore[empty-body]
    """Return the changes of structure that this plugin's attacks write on a model's card."""


@hookspec
def amb_register_suites() -> Sequence[type[Suite]]:  # type: ignore[empty-body]
    """Return the suites of this plugin."""


@hookspec
def amb_register_models() -> Sequence[type[ModelLoader]]:  # type: ignore[empty-body]
    """Return the model loaders of this plugin; a loader's name is the prefix of its references."""


@hookspec
def amb_register_reporters() -> Sequence[type[Reporter]]:  # type: ignore[empty-body]
    """Return the reporters of this plugin; a reporter's name is a value of `--format`."""


@hookspec
def amb_register_executors() -> Sequence[type[Executor]]:  # type: ignore[empty-body]
    """Return the executors of this plugin, which compute the jobs of sweeps; a name is a value of `--executor`."""


# Lifecycle: called in the parent process only. Return values are ignored; an exception is shown as a warning
# and never costs a result, but for a StoreError, which says that results cannot be kept and ends the run.


@hookspec
def amb_run_started(run: Run) -> None:
    """Called before the first cell; the plan of the run is known."""


@hookspec
def amb_cell_started(run: Run, cell: Cell) -> None:
    """Called before a cell is computed or read from the store."""


@hookspec
def amb_cell_finished(run: Run, cell: Cell, result: CellResult) -> None:
    """Called when a cell has its verdict, was skipped or has failed."""


@hookspec
def amb_run_finished(run: Run) -> None:
    """Called once after the last cell, also after an interruption; `run.results` holds what was finished."""
