"""The thief's side of a run: attacked models, forged keys, and what the key reads on each suspect."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

from amb.api.context import Context
from amb.api.interfaces import Attack, Forgery, Method
from amb.api.plan import EMBEDDED, Suspect
from amb.api.records import StoredFile, SuspectFacts
from amb.api.types import ModelFacts
from amb.execution.cached_step import CachedSteps, StepSkipped
from amb.execution.owner import OwnerSteps, Protected
from amb.execution.reading import Claim, ReadingSteps, evidence_of, open_claim
from amb.models.cache import ModelHandle
from amb.runtime.timing import measure


@dataclass(frozen=True)
class AttackedModel:
    """A suspect as attacks have left it, and what they took."""

    model: ModelHandle
    seconds: float = 0.0
    peak: float = 0.0
    report: dict[str, Any] = field(default_factory=dict)


class SuspectSteps:
    """Makes suspects and reads keys on them."""

    def __init__(self, steps: CachedSteps, reading: ReadingSteps, owner: OwnerSteps) -> None:
        self._steps, self._reading, self._owner = steps, reading, owner

    def read(self, method: Method, suspect: Suspect) -> SuspectFacts:
        """Attack, extract, measure utility; and where the evidence lies."""
        protected = self._owner.embed(method)
        if suspect.sibling and not protected.is_marked:
            raise StepSkipped("the method left the owner's model as it was, so this is a copy of the protected model")
        made = self._make_suspect(protected, suspect)
        claim = self._forge_key(protected, made.model, suspect) if suspect.kind == "forged" else protected.claim
        self._reading.require_applicable(method, made.model, claim)
        reading = self._reading.extract(method, claim, made.model, protected.source)
        return SuspectFacts(
            cached=reading.cached,
            utility=self._reading.utility(made.model),
            seconds={"embed": claim.seconds, "attack": round(made.seconds, 4), "extract": reading.facts["seconds"]},
            peak_memory_mib=max(made.peak, reading.facts["peak_memory_mib"]),
            digests={"model": made.model.digest, "key": claim.digest, "evidence": reading.digest},
            report={**made.report, **claim.report},
            evidence=evidence_of(reading),
            others=self._read_others(protected, claim, suspect) if suspect.kind == "forged" else (),
        )

    # Attacked models

    def _make_suspect(self, protected: Protected, suspect: Suspect) -> AttackedModel:
        """What the chain of attacks makes of the suspect's source."""
        at_source = suspect.source == EMBEDDED
        source = protected.model if at_source else self._owner.protected_form(protected.method, suspect.source)
        made = AttackedModel(source)
        for attack in suspect.attacks:
            if reason := attack.skip_method(protected.method):
                raise StepSkipped(reason)
            if not isinstance(attack, Forgery):
                self._require_readable_form(protected, made.model, attack, suspect)
                made = self._apply_attack(protected, made, attack, suspect.name)
        return made

    def _require_readable_form(
        self, protected: Protected, source: ModelHandle, attack: Attack, suspect: Suspect
    ) -> None:
        """Ask the method before a student of another form is trained for it, where nothing comes after that attack."""
        if attack is not suspect.attacks[-1]:
            return
        inputs = {"form of": attack.definition(), "source": source.digest}
        form = self._steps.run("form", inputs, lambda _: self._find_form(source, attack)).facts["form"]
        if form and (
            reason := protected.method.skip(ModelFacts(**{**form, "ref": suspect.name}), protected.claim.load())
        ):
            raise StepSkipped(reason)

    def _find_form(self, source: ModelHandle, attack: Attack) -> dict[str, Any]:
        model = self._steps.models.load(source)
        form = None if attack.skip(model) else attack.skeleton(model)
        return {"form": form.facts()._asdict() if form else None}

    def _apply_attack(self, protected: Protected, made: AttackedModel, attack: Attack, name: str) -> AttackedModel:
        inputs = {"source": made.model.digest, **self._list_attack_inputs(protected, attack)}
        entry = self._steps.run("model", inputs, partial(self._make_attacked, protected, made.model, attack))
        if reason := entry.facts.get("skipped"):
            raise StepSkipped(reason)
        report = {attack.canonical(): entry.facts["report"]} if entry.facts.get("report") else {}
        return AttackedModel(
            self._steps.open_model(entry, name),
            made.seconds + entry.facts["seconds"],
            max(made.peak, entry.facts["peak_memory_mib"]),
            made.report | report,
        )

    def _list_attack_inputs(self, protected: Protected, attack: Attack) -> dict[str, Any]:
        """What an attack's result depends on beside the model: itself, the seed, and what the attacker knows."""
        knows: dict[str, Any] = {"base": protected.source.digest}
        if attack.knows != "model":
            knows["method"] = protected.method.definition()
        if attack.knows == "key":
            knows["key"] = protected.claim.digest
        return {"attack": attack.definition(), "knows": knows, "seed": self._steps.plan.seed}

    def _make_attacked(self, protected: Protected, source: ModelHandle, attack: Attack, folder: Path) -> dict[str, Any]:
        from amb.models.checkpoint import save_checkpoint

        model = self._steps.models.load(source)
        if reason := attack.skip(model):
            return {"skipped": reason}
        with self._open_attacker_context(protected, attack) as ctx, measure(self._steps.device) as spent:
            attacked = attack.apply(model, ctx)
        card = save_checkpoint(attacked, folder / "model")
        cost = {"seconds": spent.seconds, "peak_memory_mib": spent.peak_memory_mib}
        return {"model": card.digest, "report": ctx.notes, **cost}

    @contextmanager
    def _open_attacker_context(self, protected: Protected, attack: Attack) -> Iterator[Context]:
        """The attacker's context, with as much of the owner's secrets as the attack declares that he has."""
        with self._steps.context("attack", attack.canonical()) as ctx:
            yield replace(
                ctx,
                base=partial(self._steps.models.load, protected.source),
                method=protected.method if attack.knows != "model" else None,
                key=protected.claim.load() if attack.knows == "key" else None,
            )

    # Keys made up after the fact

    def _forge_key(self, protected: Protected, model: ModelHandle, suspect: Suspect) -> Claim:
        """The key that the suspect's forgery makes for an innocent model."""
        forgery = suspect.attacks[-1]
        self._reading.require_applicable(protected.method, model)
        inputs = {"innocent": model.digest, **self._list_attack_inputs(protected, forgery)}
        entry = self._steps.run("forgery", inputs, partial(self._make_forgery, protected, model, forgery))
        if reason := entry.facts.get("skipped"):
            raise StepSkipped(reason)
        return open_claim(entry, {forgery.canonical(): entry.facts["report"]})

    def _make_forgery(
        self, protected: Protected, innocent: ModelHandle, forgery: Attack, folder: Path
    ) -> dict[str, Any]:
        model = self._steps.models.load(innocent)
        facts = self._reading.facts(innocent)
        known = protected.claim.load() if forgery.knows == "key" else None
        if reason := forgery.skip(model) or protected.method.skip(facts, known):
            return {"skipped": reason}
        with self._open_attacker_context(protected, forgery) as ctx, measure(self._steps.device) as spent:
            key = cast(Forgery, forgery).forge(model, ctx)
        key.save(folder / "key.safetensors")
        return {"key": key.digest, "seconds": spent.seconds, "report": ctx.notes}

    def _read_others(self, protected: Protected, claim: Claim, suspect: Suspect) -> tuple[tuple[str, StoredFile], ...]:
        """Evidence of the forged key on the other independent models, on which the verdict then rests."""
        method, found = protected.method, []
        for other in self._steps.plan.suspects:
            if other.is_bare and other.source != suspect.source:
                model = self._owner.protected_form(method, other.source)
                if method.skip(self._reading.facts(model), claim.load()) is None:
                    reading = self._reading.extract(method, claim, model, protected.source)
                    found.append((other.source, evidence_of(reading)))
        return tuple(found)
