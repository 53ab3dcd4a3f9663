"""The steps of a plan, each kept in the store: profile, embed, attack, extract, utility. What is there is not computed."""

from __future__ import annotations

import tempfile
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache, partial
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple, cast

from amb import __version__
from amb.api.context import Context
from amb.api.interfaces import ACCESS_LEVELS, Attack, Forgery, Method, Role
from amb.api.records import Key, ModelFacts, Status
from amb.errors import StoreError
from amb.execution.planning import EMBEDDED, Plan, Suspect
from amb.execution.store import Entry, Store
from amb.models.cache import Handle, Shelf
from amb.runtime.batch_size import Room
from amb.runtime.progress import Progress
from amb.runtime.timing import measure

Step = Literal["embed", "attack", "extract", "utility", "classifier"]

ROLES: Final[dict[Step, tuple[Role, ...]]] = {
    "embed": ("owner", "trigger"),
    "attack": ("attacker",),
    "extract": (),
    "utility": ("attacker", "test"),
    "classifier": ("owner",),
}
"""Which splits each step may see."""
SEEDLESS: Final = ("utility", "classifier")
"""Steps that belong to the suite and are the same at every seed."""


class Job(NamedTuple):
    """One thing to compute; method and suspect by their place in the plan."""

    kind: Literal["profile", "embed", "measure"]
    method: int = 0
    suspect: int = 0


@dataclass(frozen=True)
class Outcome:
    """What came of a job: its facts, or why there are none."""

    status: Status
    facts: Mapping[str, Any] = field(default_factory=dict)
    reason: str = ""
    traceback: str = ""


@dataclass(frozen=True)
class Claim:
    """A key with which somebody claims a model, by its digest."""

    digest: str
    load: Callable[[], Key]
    seconds: float
    """What making it took."""
    report: Mapping[str, Any]
    """What is said of its making."""


@dataclass(frozen=True)
class Embedded:
    """What the other steps need of an embedding."""

    method: Method
    source: Handle
    """The owner's model as it was before."""
    model: Handle
    claim: Claim
    entry: Entry


@dataclass(frozen=True)
class Made:
    """A suspect as attacks have left it, and what they took."""

    model: Handle
    seconds: float = 0.0
    peak: float = 0.0
    report: dict[str, Any] = field(default_factory=dict)


class Skipped(Exception):  # noqa: N818 (not an error)
    """Raised inside a step that does not apply; its text is the reason."""


class Steps:
    """Computes the jobs of one plan, in this process."""

    def __init__(self, plan: Plan, store: Store, progress: Progress) -> None:
        self.plan = plan
        self.store = store
        self.progress = progress
        # What every step depends on beside its own inputs. The seed is an input of those that draw random numbers.
        plan.compute.apply()
        self._base = {"amb": __version__, "suite": plan.suite.definition(), **plan.compute.definition()}
        self._shelf = Shelf(plan.compute, Room("reading", plan.compute.max_batch, progress.say))
        self._training = Room("training", plan.compute.max_batch, progress.say)
        # A model that is missing or unknown raises here, before anything is computed or written.
        self._refs = {ref: self._shelf.of_ref(ref) for ref in plan.references()}
        self._embedded: dict[str, Embedded] = {}

    def do(self, job: Job) -> Outcome:
        """Compute a job. A plugin that raises costs this job only; a store that cannot be written raises StoreError."""
        try:
            return Outcome("ok", self._facts_of(job))
        except Skipped as reason:
            return Outcome("skipped", reason=str(reason))
        except StoreError:
            raise
        except Exception as error:
            what = describe(self.plan, job)
            text = f"{what}\n\n{traceback.format_exc()}"
            return Outcome("failed", reason=f"{what}: {type(error).__name__}: {error}", traceback=text)

    def _facts_of(self, job: Job) -> dict[str, Any]:
        if job.kind == "profile":
            return self._profile()
        method = self.plan.methods[job.method]
        return self._report(method) if job.kind == "embed" else self._measure(method, self.plan.suspects[job.suspect])

    # Embedding

    def _embed(self, method: Method) -> Embedded:
        name = method.canonical()
        if name not in self._embedded:
            self._embedded[name] = self._find_embedding(method)
        return self._embedded[name]

    def _find_embedding(self, method: Method) -> Embedded:
        owner = self._protected(method, self.plan.owner)
        self._skip_unless_it_applies(method, owner)
        inputs = {"owner": owner.digest, "method": method.definition(), "seed": self.plan.seed}
        entry = self._step("embed", inputs, partial(self._make_embedding, method, owner))
        marked = entry.facts["model"] != owner.digest  # a fingerprint returns the owner's model as it came
        model = self._stored(entry, f"{self.plan.owner}+{method.name}") if marked else owner
        return Embedded(method, owner, model, _claim(entry), entry)

    def _make_embedding(self, method: Method, owner: Handle, folder: Path) -> dict[str, Any]:
        from amb.models.checkpoint import save_model

        model = self._shelf.load(owner)
        with self._context("embed", method.canonical()) as ctx, measure(self.plan.compute.device) as spent:
            embedding = method.embed(model, ctx)
        embedding.key.save(folder / "key.safetensors")
        digest = embedding.model.digest()
        if digest != owner.digest:
            save_model(embedding.model, folder / "model")
        return {
            "key": embedding.key.digest,
            "model": digest,
            "seconds": spent.seconds,
            "peak_memory_mib": spent.peak_memory_mib,
            "report": {**embedding.facts, **ctx.notes},
        }

    def _report(self, method: Method) -> dict[str, Any]:
        """What is worth reporting of an embedding: its cost, utility before and after, similarity."""
        embedded = self._embed(method)
        owner, model, facts = embedded.source, embedded.model, embedded.entry.facts
        pair = {"before": owner.digest, "after": model.digest}
        return {
            "method": method.canonical(),
            "access": method.access,
            "cached": embedded.entry.cached,
            "seconds": facts["seconds"],
            "peak_memory_mib": facts["peak_memory_mib"],
            "report": facts["report"],
            "utility_before": self._utility(owner).facts["utility"],
            "utility_after": self._utility(model).facts["utility"],
            "similarity": self._step("fidelity", pair, partial(self._make_similarity, owner, model)).facts,
            "digests": {"owner": owner.digest, "model": model.digest, "key": facts["key"]},
        }

    def _protected(self, method: Method, ref: str) -> Handle:
        """The model of `ref` in the form that the method protects: an encoder, or a classifier of the suite's classes."""
        handle = self._refs[ref]
        wanted = self.plan.suite.split("owner").n_classes
        if method.protects == "encoder" or self._facts(handle).n_classes == wanted:
            return handle
        return self._stored(
            self._step("model", {"classifier of": handle.digest}, partial(self._make_classifier, handle)), ref
        )

    def _make_classifier(self, encoder: Handle, folder: Path) -> dict[str, Any]:
        from amb.models.checkpoint import save_model

        with self._context("classifier") as ctx, measure(self.plan.compute.device) as spent:
            classifier = self.plan.suite.classifier(self._shelf.load(encoder), ctx)
        card = save_model(classifier, folder / "model")
        return {"model": card.digest, "seconds": spent.seconds, "peak_memory_mib": spent.peak_memory_mib}

    # A suspect

    def _measure(self, method: Method, suspect: Suspect) -> dict[str, Any]:
        """Attack, extract, measure utility: the fields of a result, and where the evidence lies."""
        embedded = self._embed(method)
        if suspect.sibling and embedded.model.digest == embedded.source.digest:
            raise Skipped("the method left the owner's model as it was, so this is a copy of the protected model")
        made = self._make_suspect(embedded, suspect)
        claim = self._forge(embedded, made.model, suspect) if suspect.kind == "forged" else embedded.claim
        self._skip_unless_it_applies(method, made.model, claim)
        reading = self._extract(method, claim, made.model)
        seconds = {"embed": claim.seconds, "attack": round(made.seconds, 4), "extract": reading.facts["seconds"]}
        facts = {
            "cached": reading.cached,
            "utility": self._utility(made.model).facts["utility"],
            "seconds": seconds,
            "peak_memory_mib": max(made.peak, reading.facts["peak_memory_mib"]),
            "digests": {"model": made.model.digest, "key": claim.digest, "evidence": reading.digest},
            "report": {**made.report, **claim.report},
            "evidence": reading.folder / "evidence.npz",
        }
        return facts | ({"others": self._others(method, claim, suspect)} if suspect.kind == "forged" else {})

    def _make_suspect(self, embedded: Embedded, suspect: Suspect) -> Made:
        """What the chain of attacks makes of the suspect's source."""
        at_source = suspect.source == EMBEDDED
        made = Made(embedded.model if at_source else self._protected(embedded.method, suspect.source))
        for attack in suspect.attacks:
            if reason := attack.skip_method(embedded.method):
                raise Skipped(reason)
            if not isinstance(attack, Forgery):
                self._skip_unless_the_form_can_be_read(embedded, made.model, attack, suspect)
                made = self._attacked(embedded, made, attack, suspect.name)
        return made

    def _skip_unless_the_form_can_be_read(
        self, embedded: Embedded, source: Handle, attack: Attack, suspect: Suspect
    ) -> None:
        """Ask the method before a student of another form is trained for it, where nothing comes after that attack."""
        if attack is not suspect.attacks[-1]:
            return
        inputs = {"form of": attack.definition(), "source": source.digest}
        form = self._step("form", inputs, lambda _: self._form(source, attack)).facts["form"]
        if form and (
            reason := embedded.method.skip(ModelFacts(**{**form, "ref": suspect.name}), embedded.claim.load())
        ):
            raise Skipped(reason)

    def _form(self, source: Handle, attack: Attack) -> dict[str, Any]:
        model = self._shelf.load(source)
        form = None if attack.skip(model) else attack.outline(model)
        return {"form": form.facts()._asdict() if form else None}

    def _attacked(self, embedded: Embedded, made: Made, attack: Attack, name: str) -> Made:
        inputs = {"source": made.model.digest, **self._inputs(embedded, attack)}
        entry = self._step("model", inputs, partial(self._make_attacked, embedded, made.model, attack))
        if reason := entry.facts.get("skipped"):
            raise Skipped(reason)
        report = {attack.canonical(): entry.facts["report"]} if entry.facts.get("report") else {}
        return Made(
            self._stored(entry, name),
            made.seconds + entry.facts["seconds"],
            max(made.peak, entry.facts["peak_memory_mib"]),
            made.report | report,
        )

    def _inputs(self, embedded: Embedded, attack: Attack) -> dict[str, Any]:
        """What an attack's result depends on beside the model: itself, the seed, and what the attacker knows."""
        knows: dict[str, Any] = {"base": embedded.source.digest}
        if attack.knows != "model":
            knows["method"] = embedded.method.definition()
        if attack.knows == "key":
            knows["key"] = embedded.claim.digest
        return {"attack": attack.definition(), "knows": knows, "seed": self.plan.seed}

    def _make_attacked(self, embedded: Embedded, source: Handle, attack: Attack, folder: Path) -> dict[str, Any]:
        from amb.models.checkpoint import save_model

        model = self._shelf.load(source)
        if reason := attack.skip(model):
            return {"skipped": reason}
        with self._attackers(embedded, attack) as ctx, measure(self.plan.compute.device) as spent:
            attacked = attack.apply(model, ctx)
        card = save_model(attacked, folder / "model")
        cost = {"seconds": spent.seconds, "peak_memory_mib": spent.peak_memory_mib}
        return {"model": card.digest, "report": ctx.notes, **cost}

    @contextmanager
    def _attackers(self, embedded: Embedded, attack: Attack) -> Iterator[Context]:
        """The attacker's context, with as much of the owner's secrets as the attack declares that he has."""
        with self._context("attack", attack.canonical()) as ctx:
            yield replace(
                ctx,
                base=partial(self._shelf.load, embedded.source),
                method=embedded.method if attack.knows != "model" else None,
                key=embedded.claim.load() if attack.knows == "key" else None,
            )

    # A key made up after the fact

    def _forge(self, embedded: Embedded, model: Handle, suspect: Suspect) -> Claim:
        """The key that the suspect's forgery makes for an innocent model."""
        forgery = suspect.attacks[-1]
        self._skip_unless_it_applies(embedded.method, model)
        inputs = {"innocent": model.digest, **self._inputs(embedded, forgery)}
        entry = self._step("forgery", inputs, partial(self._make_forgery, embedded, model, forgery))
        if reason := entry.facts.get("skipped"):
            raise Skipped(reason)
        return _claim(entry, {forgery.canonical(): entry.facts["report"]})

    def _make_forgery(self, embedded: Embedded, handle: Handle, forgery: Attack, folder: Path) -> dict[str, Any]:
        model = self._shelf.load(handle)
        facts = self._facts(handle)
        known = embedded.claim.load() if forgery.knows == "key" else None
        if reason := forgery.skip(model) or embedded.method.skip(facts, known):
            return {"skipped": reason}
        with self._attackers(embedded, forgery) as ctx, measure(self.plan.compute.device) as spent:
            key = cast(Forgery, forgery).forge(model, ctx)
        key.save(folder / "key.safetensors")
        return {"key": key.digest, "seconds": spent.seconds, "report": ctx.notes}

    def _others(self, method: Method, claim: Claim, suspect: Suspect) -> list[Path]:
        """Evidence of the forged key on the other independent models, on which the verdict then rests."""
        found = []
        for other in self.plan.suspects:
            if other.kind == "negative" and not other.sibling and not other.attacks and other.source != suspect.source:
                model = self._protected(method, other.source)
                if method.skip(self._facts(model), claim.load()) is None:
                    found.append(self._extract(method, claim, model).folder / "evidence.npz")
        return found

    # Reading

    def _extract(self, method: Method, claim: Claim, model: Handle) -> Entry:
        inputs = {"key": claim.digest, "model": model.digest, "method": method.definition(), "seed": self.plan.seed}
        return self._step("evidence", inputs, partial(self._make_evidence, method, claim, model))

    def _make_evidence(self, method: Method, claim: Claim, handle: Handle, folder: Path) -> dict[str, Any]:
        from amb.api.vision import SuspectView

        key = claim.load()
        view = SuspectView(self._shelf.load(handle), method.access)
        with self._context("extract", method.canonical()) as ctx, measure(self.plan.compute.device) as spent:
            evidence = method.extract(view, key, ctx)
        evidence.save(folder / "evidence.npz")
        (folder / "evidence.npz").chmod(0o600)  # what was expected is part of the key
        return {"seconds": spent.seconds, "peak_memory_mib": spent.peak_memory_mib, "queries": view.queries}

    def _skip_unless_it_applies(self, method: Method, model: Handle, claim: Claim | None = None) -> None:
        """Ask the method by the model's sizes, which are kept, so that a finished run loads no model."""
        facts = self._facts(model)
        if claim and ACCESS_LEVELS.index(method.access) > ACCESS_LEVELS.index(facts.answers):
            raise Skipped(f"{model.ref} answers with {facts.answers} alone; {method.name} needs {method.access}")
        if reason := method.skip(facts, claim.load() if claim else None):
            raise Skipped(reason)

    def _facts(self, model: Handle) -> ModelFacts:
        facts = self._step("facts", {"model": model.digest}, lambda _: self._shelf.load(model).facts()._asdict()).facts
        return ModelFacts(**{**facts, "ref": model.ref})

    def _utility(self, model: Handle) -> Entry:
        return self._step("utility", {"model": model.digest}, partial(self._make_utility, model))

    def _make_utility(self, model: Handle, _: Path) -> dict[str, Any]:
        with self._context("utility") as ctx:
            return {"utility": dict(self.plan.suite.utility(self._shelf.load(model), ctx))}

    def _make_similarity(self, before: Handle, after: Handle, _: Path) -> dict[str, Any]:
        from amb.evaluation.utility import compare

        with self._context("utility") as ctx:
            return dict(compare(self._shelf.load(before), self._shelf.load(after), ctx))

    # The owner's profile

    def _profile(self) -> dict[str, Any]:
        """The activation profile of the owner and its figure (the paper's Fig. 2)."""
        owner = self._refs[self.plan.owner]
        entry = self._step("profile", {"model": owner.digest}, partial(self._make_profile, owner))
        return {**entry.facts, "figure": entry.folder / "profile.png"}

    def _make_profile(self, owner: Handle, folder: Path) -> dict[str, Any]:
        from amb.evaluation.activations import activation_profile, choose_block, draw_profile

        model = self._shelf.load(owner)
        if model.n_blocks < 2:
            raise Skipped(f"{self.plan.owner} has no blocks to profile")
        with self._context("embed") as ctx:
            split = ctx.split("owner")
            profile = activation_profile(model, split.batch(range(min(100, len(split)))).images)
        block, why = choose_block(profile)
        draw_profile(profile, self.plan.owner, folder / "profile.png", block)
        return {**profile.to_json(), "block": block, "block_choice": why}

    # Helpers of the steps

    def _step(self, kind: str, inputs: Mapping[str, Any], make: Callable[[Path], Mapping[str, Any]]) -> Entry:
        return self.store.get_or_make(kind, {**self._base, **inputs}, make)

    def _stored(self, entry: Entry, ref: str) -> Handle:
        return self._shelf.of_file(entry.folder / "model", ref, entry.facts["model"])

    @contextmanager
    def _context(self, step: Step, *axes: str) -> Iterator[Context]:
        """The context of one job, with a scratch folder that is removed when the job is over."""
        splits = {role: self.plan.suite.split(role) for role in ROLES[step]}
        seed = "any seed" if step in SEEDLESS else str(self.plan.seed)
        names = (seed, step, self.plan.suite.canonical(), *axes)
        with tempfile.TemporaryDirectory(prefix="amb-", ignore_cleanup_errors=True) as folder:
            yield Context(names, splits, Path(folder), self.plan.compute, self._training, self.progress)


def _claim(entry: Entry, report: Mapping[str, Any] | None = None) -> Claim:
    load = cache(partial(Key.load, entry.folder / "key.safetensors"))
    return Claim(entry.facts["key"], load, entry.facts["seconds"], report or {})


def describe(plan: Plan, job: Job) -> str:
    """A job as messages name it."""
    if job.kind == "profile":
        return "profile of the owner"
    method = plan.methods[job.method].name
    return f"embed {method}" if job.kind == "embed" else f"{method} on {plan.suspects[job.suspect].name}"
