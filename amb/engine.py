"""The engine: embed, then attack, extract and decide for every suspect, each step kept in the store."""

from __future__ import annotations

import tempfile
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

from amb import __version__
from amb.context import Context
from amb.errors import StoreError
from amb.measure import measure
from amb.models import build_model, digest_ref, load_ref
from amb.plan import EMBEDDED, Plan, Suspect
from amb.plugins import Manager
from amb.progress import Progress
from amb.protocols import Attack, Method, Role
from amb.records import CellResult, Evidence, Key, ModelFacts, Status
from amb.store import Entry, Store

if TYPE_CHECKING:
    from amb.vision import VisionModel

T = TypeVar("T")

Step = Literal["embed", "attack", "extract", "utility"]

ROLES: dict[Step, tuple[Role, ...]] = {
    "embed": ("owner", "trigger"),
    "attack": ("attacker",),
    "extract": (),
    "utility": ("attacker", "test"),
}
"""Which splits each step may see."""


@dataclass
class Run:
    """A run as it goes on; observers see it in the lifecycle hooks."""

    id: str
    plan: Plan
    output: Path
    """The output folder, shared by all runs: the store, the runs, MLflow's files."""
    facts: Mapping[str, Any]
    """Versions, plugins, machine, git commit."""
    results: list[CellResult] = field(default_factory=list)
    embeddings: list[dict[str, Any]] = field(default_factory=list)
    """What is worth reporting of each embedding: seconds, utility before and after, similarity."""
    profile: Mapping[str, Any] | None = None
    """Activation profile of the owner, where it has blocks."""
    profile_figure: Path | None = None
    links: dict[str, str] = field(default_factory=dict)
    """Where else to look, said by observers: an address or a command."""
    notes: dict[str, Any] = field(default_factory=dict)
    """Where observers keep what they need between hooks."""

    @property
    def folder(self) -> Path:
        """Where this run's own files go: results and tracebacks."""
        return self.output / "runs" / self.id

    @property
    def failed(self) -> bool:
        """Whether any cell has failed, or none could be judged."""
        statuses = [result.status for result in self.results]
        return "failed" in statuses or "ok" not in statuses


@dataclass(frozen=True)
class Handle:
    """A model by its digest; loaded only when something has to be computed on it."""

    ref: str
    digest: str
    load: Callable[[], VisionModel]


@dataclass(frozen=True)
class Embedded:
    """What the rest of a run needs of an embedding."""

    method: Method
    key_digest: str
    load_key: Callable[[], Key]
    model: Handle
    seconds: float


@dataclass(frozen=True)
class Outcome(Generic[T]):
    """What came of a step: its value, or why there is none."""

    status: Status
    value: T | None = None
    reason: str = ""


@dataclass(frozen=True)
class Reading:
    """What was measured on one suspect, before the verdict."""

    result: CellResult
    evidence: Evidence | None


class Skipped(Exception):  # noqa: N818 (not an error)
    """Raised inside a step that does not apply; its text is the reason."""


class Engine:
    """Computes the cells of one run; what is in the store is read, not computed."""

    def __init__(self, run: Run, store: Store, manager: Manager, progress: Progress) -> None:
        self.run = run
        self.plan = run.plan
        self.store = store
        self.manager = manager
        self.progress = progress
        # What every step depends on beside its own inputs. Utility and profile do not depend on the seed.
        device = self.plan.device.partition(":")[0]
        self._base = {"amb": __version__, "suite": self.plan.suite.definition(), "device": device}
        # A model that is missing or unknown raises here, before anything is computed or written.
        self._refs = {
            ref: Handle(ref, digest_ref(ref), cache(partial(self._load_ref, ref))) for ref in self.plan.references()
        }

    def execute(self) -> None:
        """Compute every cell. A failure stays in its cell; an interruption leaves what is finished."""
        self._notify("amb_run_started", run=self.run)
        try:
            self._profile_owner()
            for method in self.plan.methods:
                self._run_method(method)
        finally:
            self._notify("amb_run_finished", run=self.run)

    def _run_method(self, method: Method) -> None:
        """Embed, read all negatives, then the positives: verdicts rest on the negatives."""
        outcome = self._attempt(f"embed {method.name}", partial(self._embed, method))
        if outcome.value is None:
            for suspect in self.plan.suspects:
                result = CellResult(self.plan.cell(method, suspect), outcome.status, reason=outcome.reason)
                self._finish(method, Reading(result, None), [])
            return
        embedded = outcome.value
        negatives = [self._read(embedded, each) for each in self.plan.suspects if each.kind == "negative"]
        for reading in negatives:
            self._finish(method, reading, [other for other in negatives if other is not reading])
        for suspect in self.plan.suspects:
            if suspect.kind == "positive":
                self._finish(method, self._read(embedded, suspect), negatives)

    def _read(self, embedded: Embedded, suspect: Suspect) -> Reading:
        """Measure one suspect; the verdict comes later."""
        cell = self.plan.cell(embedded.method, suspect)
        self._notify("amb_cell_started", run=self.run, cell=cell)
        outcome = self._attempt(f"{embedded.method.name} on {suspect.name}", partial(self._measure, embedded, suspect))
        if outcome.value is None:
            return Reading(CellResult(cell, outcome.status, reason=outcome.reason), None)
        facts, evidence, path = outcome.value
        return Reading(CellResult(cell, "ok", evidence=path, **facts), evidence)

    def _finish(self, method: Method, reading: Reading, negatives: Sequence[Reading]) -> None:
        """Decide, record and tell the observers."""
        from amb.statistics import decide

        result = reading.result
        if reading.evidence is not None:
            known = [each.evidence for each in negatives if each.evidence is not None]
            tau = min(self.plan.tau_of(method), reading.evidence.expected.shape[1])
            judge = partial(decide, reading.evidence, known, tau, self.plan.alpha)
            outcome = self._attempt(f"verdict on {result.cell.suspect}", judge)
            result = replace(result, status=outcome.status, reason=outcome.reason, verdict=outcome.value)
        self.run.results.append(result)
        self._notify("amb_cell_finished", run=self.run, cell=result.cell, result=result)

    # The steps, each kept in the store

    def _embed(self, method: Method) -> Embedded:
        owner = self._refs[self.plan.owner]
        self._skip_unless_it_applies(method, owner)
        inputs = {"owner": owner.digest, "method": method.definition(), "seed": self.plan.seed}
        entry = self._step("embed", inputs, partial(self._make_embedding, method, owner))
        facts = entry.facts
        model = owner if facts["model"] == owner.digest else self._stored(entry, f"{self.plan.owner}+{method.name}")
        self._report_embedding(method, owner, model, entry)
        load_key = cache(partial(Key.load, entry.folder / "key.safetensors"))
        return Embedded(method, facts["key"], load_key, model, facts["seconds"])

    def _make_embedding(self, method: Method, owner: Handle, folder: Path) -> dict[str, Any]:
        from amb.checkpoint import save_model

        model = owner.load()
        with self._context("embed", method.canonical()) as ctx, measure(self.plan.device) as spent:
            embedding = method.embed(model, ctx)
        embedding.key.save(folder / "key.safetensors")
        digest = embedding.model.digest()
        if digest != owner.digest:  # a fingerprint returns the owner's model as it came
            save_model(embedding.model, folder / "model")
        return {
            "key": embedding.key.digest,
            "model": digest,
            "seconds": spent.seconds,
            "peak_memory_mib": spent.peak_memory_mib,
            "report": dict(embedding.facts),
        }

    def _measure(self, embedded: Embedded, suspect: Suspect) -> tuple[dict[str, Any], Evidence, Path]:
        """Attack, extract, and measure utility; returns the result's fields, the evidence and where it lies."""
        owner = self._refs[self.plan.owner]
        if suspect.sibling and embedded.model.digest == owner.digest:
            raise Skipped("the method left the owner's model as it was, so this is a copy of the protected model")
        model = embedded.model if suspect.source == EMBEDDED else self._refs[suspect.source]
        attack_seconds, attack_peak = 0.0, 0.0
        for attack in suspect.attacks:
            entry = self._attack(model, attack)
            model = self._stored(entry, f"{suspect.name}")
            attack_seconds += entry.facts["seconds"]
            attack_peak = max(attack_peak, entry.facts["peak_memory_mib"])
        self._skip_unless_it_applies(embedded.method, model, embedded.load_key)
        reading = self._extract(embedded, model)
        path = reading.folder / "evidence.npz"
        facts = {
            "cached": reading.cached,
            "utility": self._utility(model).facts["utility"],
            "seconds": {
                "embed": embedded.seconds,
                "attack": round(attack_seconds, 4),
                "extract": reading.facts["seconds"],
            },
            "peak_memory_mib": max(attack_peak, reading.facts["peak_memory_mib"]),
            "digests": {"model": model.digest, "key": embedded.key_digest, "evidence": reading.digest},
        }
        return facts, Evidence.load(path), path

    def _attack(self, source: Handle, attack: Attack) -> Entry:
        inputs = {"source": source.digest, "attack": attack.definition(), "seed": self.plan.seed}
        return self._step("model", inputs, partial(self._make_attacked, source, attack))

    def _make_attacked(self, source: Handle, attack: Attack, folder: Path) -> dict[str, Any]:
        from amb.checkpoint import save_model

        model = source.load()
        if reason := attack.skip(model):
            raise Skipped(reason)
        with self._context("attack", attack.canonical()) as ctx, measure(self.plan.device) as spent:
            attacked = attack.apply(model, ctx)
        card = save_model(attacked, folder / "model")
        return {"model": card.digest, "seconds": spent.seconds, "peak_memory_mib": spent.peak_memory_mib}

    def _extract(self, embedded: Embedded, model: Handle) -> Entry:
        inputs = {"key": embedded.key_digest, "model": model.digest, "method": embedded.method.definition()}
        return self._step("evidence", {**inputs, "seed": self.plan.seed}, partial(self._make_evidence, embedded, model))

    def _make_evidence(self, embedded: Embedded, handle: Handle, folder: Path) -> dict[str, Any]:
        from amb.vision import SuspectView

        method, key = embedded.method, embedded.load_key()
        view = SuspectView(handle.load(), method.access)
        with self._context("extract", method.canonical()) as ctx, measure(self.plan.device) as spent:
            evidence = method.extract(view, key, ctx)
        evidence.save(folder / "evidence.npz")
        (folder / "evidence.npz").chmod(0o600)  # what was expected is part of the key
        return {"seconds": spent.seconds, "peak_memory_mib": spent.peak_memory_mib, "queries": view.queries}

    def _skip_unless_it_applies(self, method: Method, model: Handle, load_key: Callable[[], Key] | None = None) -> None:
        """Ask the method by the model's sizes, which are kept, so that a finished run loads no model."""
        facts = self._step("facts", {"model": model.digest}, lambda _: model.load().facts()._asdict()).facts
        if reason := method.skip(ModelFacts(**{**facts, "ref": model.ref}), load_key() if load_key else None):
            raise Skipped(reason)

    def _utility(self, model: Handle) -> Entry:
        return self._step("utility", {"model": model.digest}, partial(self._make_utility, model))

    def _make_utility(self, model: Handle, _: Path) -> dict[str, Any]:
        with self._context("utility") as ctx:
            return {"utility": dict(self.plan.suite.utility(model.load(), ctx))}

    def _make_similarity(self, before: Handle, after: Handle, _: Path) -> dict[str, Any]:
        from amb.fidelity import compare

        with self._context("utility") as ctx:
            return dict(compare(before.load(), after.load(), ctx))

    def _profile_owner(self) -> None:
        """The activation profile of the owner and its figure (the paper's Fig. 2)."""
        owner = self._refs[self.plan.owner]
        make = partial(self._make_profile, owner)
        outcome = self._attempt("profile of the owner", lambda: self._step("profile", {"model": owner.digest}, make))
        if outcome.value is not None:
            self.run.profile = outcome.value.facts
            self.run.profile_figure = outcome.value.folder / "profile.png"
        else:
            self.progress.say(f"no activation profile: {outcome.reason}")

    def _make_profile(self, owner: Handle, folder: Path) -> dict[str, Any]:
        from amb.profile import activation_profile, choose_block, draw_profile

        model = owner.load()
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
        from amb.checkpoint import load_model

        def load() -> VisionModel:
            return load_model(entry.folder / "model", ref, build_model).to(self.plan.device)

        return Handle(ref, entry.facts["model"], cache(load))

    def _load_ref(self, ref: str) -> VisionModel:
        return load_ref(ref).to(self.plan.device)

    @contextmanager
    def _context(self, step: Step, *axes: str) -> Iterator[Context]:
        """The context of one job, with a scratch folder that is removed when the job is over."""
        splits = {role: self.plan.suite.split(role) for role in ROLES[step]}
        seed = "any seed" if step == "utility" else str(self.plan.seed)
        names = (seed, step, self.plan.suite.canonical(), *axes)
        with tempfile.TemporaryDirectory(prefix="amb-", ignore_cleanup_errors=True) as folder:
            yield Context(names, splits, Path(folder), self.plan.device, self.progress)

    def _report_embedding(self, method: Method, owner: Handle, model: Handle, entry: Entry) -> None:
        before, after = self._utility(owner).facts["utility"], self._utility(model).facts["utility"]
        pair = {"before": owner.digest, "after": model.digest}
        alike = self._step("fidelity", pair, partial(self._make_similarity, owner, model)).facts
        self.run.embeddings.append(
            {
                "method": method.canonical(),
                "access": method.access,
                "cached": entry.cached,
                "seconds": entry.facts["seconds"],
                "peak_memory_mib": entry.facts["peak_memory_mib"],
                "report": entry.facts["report"],
                "utility_before": before,
                "utility_after": after,
                "similarity": alike,
                "digests": {"owner": owner.digest, "model": model.digest, "key": entry.facts["key"]},
            }
        )

    def _attempt(self, what: str, step: Callable[[], T]) -> Outcome[T]:
        """Run a step; a plugin that raises costs its own cells only, with the traceback in a file."""
        try:
            return Outcome("ok", step())
        except Skipped as reason:
            return Outcome("skipped", reason=str(reason))
        except StoreError:
            raise
        except Exception as error:
            path = self._save_traceback(what)
            return Outcome("failed", reason=f"{what}: {type(error).__name__}: {error} (traceback in {path})")

    def _save_traceback(self, what: str) -> Path:
        folder = self.run.folder / "tracebacks"
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{len(list(folder.iterdir())) + 1:03}.txt"
        path.write_text(f"{what}\n\n{traceback.format_exc()}", encoding="utf-8")
        return path

    def _notify(self, hook: str, **arguments: Any) -> None:
        for warning in self.manager.notify(hook, **arguments):
            self.progress.say(f"warning: {warning}")
