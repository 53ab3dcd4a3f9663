"""Context: what the harness hands to a component beside the model: device, named seeds, data, progress, a folder."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from amb.api.interfaces import Method
from amb.api.types import Role
from amb.errors import AccessError
from amb.runtime.batch_size import BatchSizeLimiter
from amb.runtime.compute import Compute
from amb.runtime.progress import Progress, Silent

if TYPE_CHECKING:
    import torch

    from amb.api.data import Batch, Split
    from amb.api.records import Key
    from amb.api.vision import VisionModel


@dataclass(frozen=True)
class Context:
    """Everything a component may use; nothing here is kept by the component.

    The data of a suite is shared out by role: a method sees the owner's images and the triggers, an attack sees
    the attacker's, the measure of utility sees the attacker's (to fit probes) and the test images.
    """

    axes: tuple[str, ...] = field(repr=False)
    """What the randomness depends on: the run's seed and the axes of this job. An owner's are secret."""
    splits: Mapping[Role, Split] = field(repr=False)
    folder: Path
    """Scratch space for this job; removed afterwards."""
    compute: Compute = field(default_factory=Compute)
    """How to compute; `amb.training.accumulate.GradientAccumulator` and the models heed it."""
    limiter: BatchSizeLimiter = field(default_factory=lambda: BatchSizeLimiter("training"), repr=False)
    """How many images at once, where gradients are asked for."""
    progress: Progress = field(default_factory=Silent)
    base: Callable[[], VisionModel] | None = field(default=None, repr=False)
    """Loads the owner's model before it was marked: for attacks on it, and for methods that read a suspect against it."""
    method: Method | None = None
    """The method under judgement, for attacks that know it (`Attack.knows`)."""
    key: Key | None = field(default=None, repr=False)
    """The owner's key, for attacks that know it."""
    notes: dict[str, Any] = field(default_factory=dict, repr=False)
    """What is worth reporting of the work, as JSON; see `note`."""

    @property
    def device(self) -> str:
        """A torch device: `cpu`, `cuda`, `cuda:1`, `mps`."""
        return self.compute.device

    def place(self, model: VisionModel) -> VisionModel:
        """The model on the device, set to compute as asked: for models that were built, not copied."""
        return model.place(self.compute)

    def load(self, split: Split, rows_of_batches: Iterable[torch.Tensor]) -> Iterator[tuple[torch.Tensor, Batch]]:
        """Rows and their images, batch after batch; read ahead and in parallel where that is asked for."""
        from amb.api.data import read_ahead

        return read_ahead(split, rows_of_batches, self.compute.load_threads, pin=self.device.startswith("cuda"))

    def note(self, **facts: Any) -> None:
        """Report small JSON values with the result: what an attack found, how far it got. Nothing secret."""
        self.notes.update(facts)

    def split(self, role: Role) -> Split:
        """The images of a role; raises AccessError where this component may not see them."""
        if role not in self.splits:
            raise AccessError(f"The {role} split was asked for, but this job may use only: {', '.join(self.splits)}.")
        return self.splits[role]

    def seed(self, name: str) -> int:
        """A seed for one purpose, the same for the same axes: 63 bits of SHA-256."""
        text = "\0".join([*self.axes, name])
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1

    def draw_bytes(self, name: str, n: int) -> bytes:
        """`n` bytes for one purpose, the same for the same axes: SHAKE-256, as hard to guess as the axes are."""
        return hashlib.shake_256("\0".join([*self.axes, name, "bytes"]).encode()).digest(n)

    def generator(self, name: str) -> torch.Generator:
        """A CPU generator seeded for one purpose, so that results do not depend on the device."""
        import torch

        return torch.Generator().manual_seed(self.seed(name))

    @contextmanager
    def seeded(self, name: str) -> Iterator[None]:
        """Seed torch's global generator for one purpose, and put it back afterwards.

        For code that draws from the global generator: a network's initial weights, dropout.
        """
        import torch

        devices = [self.device] if self.device.startswith("cuda") else []
        # of the processor alone where that is all: for every kind of device that is not there, torch.manual_seed notes a call and a trace
        seed = torch.default_generator.manual_seed if self.device == "cpu" else torch.manual_seed
        with torch.random.fork_rng(devices=devices):
            seed(self.seed(name))
            yield
