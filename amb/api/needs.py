"""What a job takes of a machine while it computes: what schedulers set aside for it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from amb.api.types import Work

PROCESS_MIB: Final = 768
"""Of a worker with torch and the models' libraries loaded, before it computes anything."""
_READ_COPIES: Final = 3
"""Weights held to read a model: itself, the unmarked one beside it, and as much again for activations."""
_TRAINED_COPIES: Final = 6
"""Weights held to train: the model before, the one that is trained, its gradients, AdamW's two moments, activations."""


@dataclass(frozen=True)
class Needs:
    """What a job takes of a machine. An estimate to share machines by: nothing enforces it."""

    cpus: float = 1.0
    """Cores."""
    gpus: float = 1.0
    """GPUs, or a share of one; counts only where the run computes on a GPU."""
    memory_mib: int = 0
    """Resident memory; 0 where nobody knows."""

    def __or__(self, other: Needs) -> Needs:
        """Enough for either."""
        return Needs(max(self.cpus, other.cpus), max(self.gpus, other.gpus), max(self.memory_mib, other.memory_mib))

    def on(self, device: str) -> Needs:
        """On a device: no GPU where it is none, or where the user has named one."""
        return self if device == "cuda" else replace(self, gpus=0.0)


def reckon_needs(work: Work | None, weights_mib: float) -> Needs:
    """The needs of one who passes images through a model of so many MiB of weights; None counts as training."""
    copies = _TRAINED_COPIES if work is None or work.trained else _READ_COPIES
    return Needs(memory_mib=round(PROCESS_MIB + copies * weights_mib))
