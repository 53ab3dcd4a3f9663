"""What is read off a model: its sizes, the key, its utility; and whether a method applies to it at all."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache, partial
from pathlib import Path
from typing import Any, Final

from amb.api.interfaces import Method
from amb.api.records import Key, StoredFile
from amb.api.types import ACCESS_LEVELS, ModelFacts
from amb.execution.cached_step import CachedSteps, StepSkipped
from amb.models.cache import ModelHandle
from amb.runtime.timing import measure
from amb.store.entries import StoreEntry

EVIDENCE: Final = "evidence.npz"


@dataclass(frozen=True)
class Claim:
    """A key with which somebody claims a model, by its digest."""

    digest: str
    load: Callable[[], Key]
    seconds: float
    """What making it took."""
    report: Mapping[str, Any] = field(default_factory=dict)
    """What is said of its making."""


def open_claim(entry: StoreEntry, report: Mapping[str, Any] | None = None) -> Claim:
    """The claim whose key a step has put into the store."""
    load = cache(partial(Key.load, entry.folder / "key.safetensors"))
    return Claim(entry.facts["key"], load, entry.facts["seconds"], report or {})


def evidence_of(entry: StoreEntry) -> StoredFile:
    """Where the store has the evidence that a step has read."""
    return StoredFile("evidence", entry.digest, EVIDENCE)


class ReadingSteps:
    """Reads models; every reading is kept."""

    def __init__(self, steps: CachedSteps) -> None:
        self._steps = steps

    def require_applicable(self, method: Method, model: ModelHandle, claim: Claim | None = None) -> None:
        """Skip where the method does not apply; asked by the model's sizes, so that a finished run loads no model."""
        facts = self.facts(model)
        if claim and ACCESS_LEVELS.index(method.access) > ACCESS_LEVELS.index(facts.max_access):
            raise StepSkipped(f"{model.ref} answers with {facts.max_access} alone; {method.name} needs {method.access}")
        if reason := method.skip(facts, claim.load() if claim else None):
            raise StepSkipped(reason)

    def facts(self, model: ModelHandle) -> ModelFacts:
        """The sizes of a model."""
        make = lambda _: self._steps.models.load(model).facts()._asdict()  # noqa: E731 (short)
        return ModelFacts(**{**self._steps.run("facts", {"model": model.digest}, make).facts, "ref": model.ref})

    def extract(self, method: Method, claim: Claim, model: ModelHandle, base: ModelHandle) -> StoreEntry:
        """Evidence of a claim on a model: `evidence.npz`, seconds, memory and queries. `base` is the unmarked model."""
        seed = self._steps.plan.seed
        inputs = {"key": claim.digest, "model": model.digest, "method": method.definition(), "seed": seed}
        return self._steps.run("evidence", inputs, partial(self._make_evidence, method, claim, model, base))

    def _make_evidence(
        self, method: Method, claim: Claim, model: ModelHandle, base: ModelHandle, folder: Path
    ) -> dict[str, Any]:
        from amb.api.vision import SuspectView

        key = claim.load()
        view = SuspectView(self._steps.models.load(model), method.access)
        with self._steps.context("extract", method.canonical()) as ctx, measure(self._steps.device) as spent:
            evidence = method.extract(view, key, replace(ctx, base=partial(self._steps.models.load, base)))
        evidence.save(folder / EVIDENCE)
        (folder / EVIDENCE).chmod(0o600)  # what was expected is part of the key
        return {"seconds": spent.seconds, "peak_memory_mib": spent.peak_memory_mib, "queries": view.queries}

    def utility(self, model: ModelHandle) -> dict[str, float]:
        """How well a model does its job, by the suite's own measure."""
        found: dict[str, float] = self._steps.run(
            "utility", {"model": model.digest}, partial(self._make_utility, model)
        ).facts["utility"]
        return found

    def _make_utility(self, model: ModelHandle, _: Path) -> dict[str, Any]:
        with self._steps.context("utility") as ctx:
            return {"utility": dict(self._steps.plan.suite.utility(self._steps.models.load(model), ctx))}
