"""Attacks: what a thief does to a model, one file per family."""

from __future__ import annotations

import amb
from amb_attacks.distill import Distill
from amb_attacks.finetune import FineTune
from amb_attacks.none import NoAttack
from amb_attacks.prune import Prune


@amb.hookimpl
def amb_register_attacks() -> list[type[amb.Attack]]:
    return [NoAttack, Prune, FineTune, Distill]
