"""The executors of one machine, as a plugin of this project's own: in the process that asks, and in processes of its own."""

from __future__ import annotations

from amb.execution.executors.processes import Processes
from amb.execution.executors.serial import Serial
from amb.plugin.specs import hookimpl


@hookimpl
def amb_register_executors() -> list[type[Serial | Processes]]:
    """Provide `serial` and `processes`."""
    return [Serial, Processes]
