"""amb: the benchmark harness for ownership verification of vision models.

These are the names that plugins build on. They are resolved at first use, so `import amb` stays cheap.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from amb.api.component import Component
    from amb.api.context import Context
    from amb.api.data import Batch, Split
    from amb.api.interfaces import (
        Access,
        Attack,
        Edit,
        Fetch,
        Forgery,
        Independent,
        Knows,
        Method,
        ModelLoader,
        Reporter,
        Role,
        Sibling,
        Suite,
        Work,
    )
    from amb.api.records import Cell, CellResult, Embedding, Evidence, Key, ModelFacts, Verdict
    from amb.api.vision import Affine, Backbone, BlockParts, SuspectView, VisionModel
    from amb.errors import (
        AccessError,
        AmbError,
        BadParamsError,
        CheckpointError,
        MissingDependencyError,
        MissingError,
        NoHeadError,
        UnknownNameError,
    )
    from amb.models.checkpoint import load_model, read_card, save_model
    from amb.models.references import build_model, edited, load_ref
    from amb.plugin.manager import unknown_name
    from amb.plugin.specs import hookimpl

_HOME = {
    "amb.models.checkpoint": ("load_model", "read_card", "save_model"),
    "amb.api.component": ("Component",),
    "amb.api.context": ("Context",),
    "amb.api.data": ("Batch", "Split"),
    "amb.errors": (
        "AccessError",
        "AmbError",
        "BadParamsError",
        "CheckpointError",
        "MissingDependencyError",
        "MissingError",
        "NoHeadError",
        "UnknownNameError",
    ),
    "amb.plugin.specs": ("hookimpl",),
    "amb.models.references": ("build_model", "edited", "load_ref"),
    "amb.plugin.manager": ("unknown_name",),
    "amb.api.interfaces": (
        "Access",
        "Attack",
        "Edit",
        "Fetch",
        "Forgery",
        "Independent",
        "Knows",
        "Method",
        "ModelLoader",
        "Reporter",
        "Role",
        "Sibling",
        "Suite",
        "Work",
    ),
    "amb.api.records": ("Cell", "CellResult", "Embedding", "Evidence", "Key", "ModelFacts", "Verdict"),
    "amb.api.vision": ("Affine", "Backbone", "BlockParts", "SuspectView", "VisionModel"),
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}

__all__ = [  # noqa: PLE0604 (test_public_names keeps it true)
    "__version__",
    *sorted(_MODULE_OF),
]


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'amb' has no attribute '{name}'")
    value = getattr(import_module(_MODULE_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
