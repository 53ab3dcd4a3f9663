"""What is installed, by the names that the command line takes."""

from __future__ import annotations

import builtins
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from amb.api.interfaces import Attack, Method, Suite
from amb.errors import UsageError, unknown_name
from amb.models import references
from amb.plugin.manager import manager

if TYPE_CHECKING:
    from amb.api.vision import VisionModel


def list_components(kind: str) -> builtins.list[str]:
    """Every name and preset of a kind: `methods`, `attacks`, `suites`, `models` or `executors`. Raises UnknownNameError."""
    kinds = manager().registry.kinds
    if kind not in kinds:
        raise unknown_name("kind of component", kind, kinds, "`amb list` shows all")
    if kind == "models":
        return [f"{name}/{item}" for name, cls in kinds[kind].classes.items() for item in cls().names()]
    return kinds[kind].names()


def get_method(spec: str) -> Method:
    """The method that a spec such as `activemark:n_bits=64` names. Raises UsageError."""
    return manager().registry.method(spec)


def get_attack(spec: str) -> Attack:
    """The attack that a spec such as `prune:amount=0.3` names. Raises UsageError; a chain is more than one attack."""
    chain = manager().registry.attack_chain(spec)
    if len(chain) != 1:
        raise UsageError(f"'{spec}' is a chain of {len(chain)} attacks. Name one of them.")
    return chain[0]


def get_suite(spec: str) -> Suite:
    """The suite that a spec such as `folder:root=photos` names. Raises UsageError."""
    return manager().registry.suite(spec)


def load_model(ref: str) -> VisionModel:
    """The trained model that a reference such as `timm/vit_base_patch16_224.mae` names, on the CPU.

    Raises UnknownNameError, CheckpointError, MissingError.
    """
    return references.load_model(ref, manager().registry)


def build_model(architecture: Mapping[str, Any]) -> VisionModel:
    """The untrained network of a card's `architecture`, its edits replayed. Raises CheckpointError, UnknownNameError."""
    return references.build_model(architecture, manager().registry)
