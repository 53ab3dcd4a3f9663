"""A protection under way: what was asked, with what, and the steps that are finished."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from amb import __version__
from amb.api.context import Context
from amb.api.digests import digest_of
from amb.api.interfaces import Method, Suite
from amb.api.types import Role
from amb.models.references import load_model
from amb.plugin.registry import Registry
from amb.runtime.batch_size import BatchSizeLimiter
from amb.runtime.compute import Compute
from amb.runtime.progress import Progress
from amb.runtime.scratch import open_scratch
from amb.store.entries import StoreEntry
from amb.store.store import Store

if TYPE_CHECKING:
    from amb.api.vision import VisionModel

ROOT: Final = "root"
"""The one secret from the operating system; all that is drawn while protecting follows from it."""


@dataclass(frozen=True)
class Request:
    """What is to be protected, with what."""

    model: str
    """Reference of the model."""
    method: Method
    suite: Suite
    """Its splits are the images: the owner's to train on, the triggers to read on, the others to test with."""
    level: float
    self_test: str
    """Which self-test: `none`, `quick` or `full`."""

    def digest(self) -> str:
        """Of all that the result depends on but the secret."""
        return digest_of(
            {
                "model": self.model,
                "method": self.method.definition(),
                "suite": self.suite.definition(),
                "level": self.level,
                "self-test": self.self_test,
                "amb": __version__,
            }
        )


@dataclass(frozen=True)
class Workplace:
    """How and where to work."""

    registry: Registry
    compute: Compute
    progress: Progress

    def load(self, ref: str) -> VisionModel:
        """The model of a reference, where it computes."""
        return load_model(ref, self.registry).place(self.compute)


class Protection:
    """One protection under way, in `<target>.partial`."""

    def __init__(self, request: Request, target: Path, at: Workplace) -> None:
        self.request, self.target, self.at = request, target, at
        self.draft = target.with_name(f"{target.name}.partial")
        self.finished = self.draft / "finished"
        self._store = Store(self.draft / "steps", at.progress.say)
        self._limiter = BatchSizeLimiter("training", at.compute.max_batch, at.progress.say)

    def step(self, name: str, make: Callable[[Path], Mapping[str, Any]]) -> StoreEntry:
        """What a step has written, made first where it has not been made."""
        return self._store.get_or_make(name, {"request": self.request.digest()}, make)

    @contextmanager
    def context(self, stage: str, *roles: Role) -> Iterator[Context]:
        """The context of one piece of work, its randomness as secret as the root."""
        axes = ("protect", (self.draft / ROOT).read_bytes().hex(), stage)
        splits = {role: self.request.suite.split(role) for role in roles}
        with open_scratch() as folder:
            yield Context(axes, splits, folder, self.at.compute, self._limiter, self.at.progress)
