"""The owner's side of a run: the activation profile, the model in the form that is protected, and the embedding."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from amb.api.interfaces import Method
from amb.api.records import EmbeddingFacts, StoredFile
from amb.execution.cached_step import CachedSteps, StepSkipped
from amb.execution.jobs import ProfileFacts
from amb.execution.reading import Claim, ReadingSteps, open_claim
from amb.models.cache import ModelHandle
from amb.runtime.timing import measure
from amb.store.entries import StoreEntry

FIGURE: Final = "profile.png"


@dataclass(frozen=True)
class Protected:
    """A protected model and the key to it."""

    method: Method
    source: ModelHandle
    """The owner's model as it was before."""
    model: ModelHandle
    """As it is deployed: marked, or the source itself where the method leaves it as it is."""
    claim: Claim
    entry: StoreEntry

    @property
    def is_marked(self) -> bool:
        """Whether embedding changed the model."""
        return self.model.digest != self.source.digest


class OwnerSteps:
    """Profiles and protects the owner's model."""

    def __init__(self, steps: CachedSteps, reading: ReadingSteps) -> None:
        self._steps, self._reading = steps, reading
        self._protected: dict[str, Protected] = {}

    def embed(self, method: Method) -> Protected:
        """The model that a method protects, and its key."""
        name = method.canonical()
        if name not in self._protected:
            self._protected[name] = self._find_embedding(method)
        return self._protected[name]

    def _find_embedding(self, method: Method) -> Protected:
        ref = self._steps.plan.owner
        source = self.protected_form(method, ref)
        self._reading.require_applicable(method, source)
        inputs = {"owner": source.digest, "method": method.definition(), "seed": self._steps.plan.seed}
        entry = self._steps.run("embed", inputs, partial(self._make_embedding, method, source))
        marked = entry.facts["model"] != source.digest  # a fingerprint returns the owner's model as it came
        model = self._steps.open_model(entry, f"{ref}+{method.name}") if marked else source
        return Protected(method, source, model, open_claim(entry), entry)

    def _make_embedding(self, method: Method, source: ModelHandle, folder: Path) -> dict[str, Any]:
        from amb.models.checkpoint import save_checkpoint

        model = self._steps.models.load(source)
        with self._steps.context("embed", method.canonical()) as ctx, measure(self._steps.device) as spent:
            embedding = method.embed(model, ctx)
        embedding.key.save(folder / "key.safetensors")
        digest = embedding.model.digest()
        if digest != source.digest:
            save_checkpoint(embedding.model, folder / "model")
        return {
            "key": embedding.key.digest,
            "model": digest,
            "seconds": spent.seconds,
            "peak_memory_mib": spent.peak_memory_mib,
            "report": {**embedding.facts, **ctx.notes},
        }

    def report_embedding(self, method: Method) -> EmbeddingFacts:
        """What is worth reporting of an embedding: its cost, utility before and after, similarity."""
        protected = self.embed(method)
        source, model, facts = protected.source, protected.model, protected.entry.facts
        return EmbeddingFacts(
            method=method.canonical(),
            access=method.access,
            cached=protected.entry.cached,
            seconds=facts["seconds"],
            peak_memory_mib=facts["peak_memory_mib"],
            report=facts["report"],
            utility_before=self._reading.utility(source),
            utility_after=self._reading.utility(model),
            similarity=self._compare_models(source, model),
            digests={"owner": source.digest, "model": model.digest, "key": facts["key"]},
        )

    def _compare_models(self, before: ModelHandle, after: ModelHandle) -> Mapping[str, float | None]:
        pair = {"before": before.digest, "after": after.digest}
        return self._steps.run("fidelity", pair, partial(self._make_similarity, before, after)).facts

    def _make_similarity(self, before: ModelHandle, after: ModelHandle, _: Path) -> dict[str, Any]:
        from amb.evaluation.utility import compare

        with self._steps.context("utility") as ctx:
            return dict(compare(self._steps.models.load(before), self._steps.models.load(after), ctx))

    def protected_form(self, method: Method, ref: str) -> ModelHandle:
        """The model of `ref` as the method protects it: an encoder, or a classifier of the suite's classes."""
        model = self._steps.find_model(ref)
        wanted = self._steps.plan.suite.split("owner").n_classes
        if method.protects == "encoder" or self._reading.facts(model).n_classes == wanted:
            return model
        entry = self._steps.run("model", {"classifier of": model.digest}, partial(self._make_classifier, model))
        return self._steps.open_model(entry, ref)

    def _make_classifier(self, encoder: ModelHandle, folder: Path) -> dict[str, Any]:
        from amb.models.checkpoint import save_checkpoint
        from amb.training.loop import train_classifier

        model = self._steps.models.load(encoder)
        with self._steps.context("classifier") as ctx, measure(self._steps.device) as spent:
            classifier = self._steps.plan.suite.classifier(model, ctx) or train_classifier(model, ctx)
        card = save_checkpoint(classifier, folder / "model")
        return {"model": card.digest, "seconds": spent.seconds, "peak_memory_mib": spent.peak_memory_mib}

    def profile(self) -> ProfileFacts:
        """The activation profile of the owner and its figure (the paper's Fig. 2)."""
        owner = self._steps.find_model(self._steps.plan.owner)
        entry = self._steps.run("profile", {"model": owner.digest}, partial(self._make_profile, owner))
        return ProfileFacts(dict(entry.facts), StoredFile("profile", entry.digest, FIGURE))

    def _make_profile(self, owner: ModelHandle, folder: Path) -> dict[str, Any]:
        from amb.evaluation.activations import activation_profile, choose_block, draw_profile

        ref = self._steps.plan.owner
        model = self._steps.models.load(owner)
        if model.n_blocks < 2:
            raise StepSkipped(f"{ref} has no blocks to profile")
        with self._steps.context("embed") as ctx:
            split = ctx.split("owner")
            profile = activation_profile(model, split.batch(range(min(100, len(split)))).images)
        block, why = choose_block(profile)
        draw_profile(profile, ref, folder / FIGURE, block)
        return {**profile.to_json(), "block": block, "block_choice": why}
