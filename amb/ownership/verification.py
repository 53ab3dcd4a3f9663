"""Reading a key on suspects, and what may be concluded: the owner's question, "is that model mine?"."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

from amb.api.interfaces import Method
from amb.api.records import Evidence
from amb.api.types import ClaimKind
from amb.errors import UsageError
from amb.evaluation.claims import ValidTest, correct_holm, exact_test, source_test
from amb.evaluation.rates import detection_rate, errors
from amb.ownership.key_facts import OpenedKey
from amb.ownership.reading import read_images, read_view
from amb.runtime.compute import Compute

if TYPE_CHECKING:
    from torch import Tensor

    from amb.api.vision import SuspectView, VisionModel


_SMALLEST: Final = 1e-300


@dataclass(frozen=True)
class Suspect:
    """A model in doubt, or whatever answers for it."""

    name: str
    digest: str | None
    """64 digits over its tensors; None where nobody has its weights."""
    view: SuspectView = field(repr=False)
    source: str = ""
    """For a negative: the model that it was made from."""


@dataclass(frozen=True)
class Finding:
    """What was read on one suspect, and what follows."""

    suspect: Suspect
    evidence: Evidence = field(repr=False)
    test: ValidTest
    """At the level of this one suspect."""
    claims: ClaimKind
    corrected_p: float
    """Over all readings of the verification (Holm 1979); the claim rests on it."""
    level: float
    """Largest p that is claimed at, as asked; few sources of innocent models support no small one."""
    n_readings: int = 1
    """Readings that share the error rate: of each key on each suspect."""
    key: str = ""
    """Which key was read, where there are several."""
    is_unmarked: bool = False
    """The suspect is the unmarked model of the key."""
    sources: tuple[str, ...] = ()
    """Innocent models whose rank the test rests on, where the null is not exact: by source, else by digest."""
    on_given_images: bool = False
    """Read on images that are not the key's."""

    @property
    def claim(self) -> bool:
        """Whether the suspect may be claimed."""
        return self.corrected_p <= self.level and bool(self.test.basis == "exact" or self.sources)

    @property
    def n_right(self) -> int:
        """Symbols that are as the key expects them."""
        return int((self.evidence.expected == self.evidence.observed).sum())

    @property
    def n_symbols(self) -> int:
        """Symbols that the key has."""
        return int(self.evidence.expected.size)


def verify(
    opened: OpenedKey,
    method: Method,
    suspects: Sequence[Suspect],
    *,
    unmarked: Callable[[], VisionModel] | None = None,
    negatives: Sequence[Suspect] = (),
    level: float | None = None,
    images: Tensor | None = None,
    compute: Compute | None = None,
) -> list[Finding]:
    """Read a key on each suspect. Several suspects share the error rate (Holm).

    `images`, (n, 3, height, width) in [0, 1], are read instead of the key's own where they are given; that takes `unmarked`.

    Raises UsageError for a key that anybody can make again, or that does not follow from its secret.
    """
    opened.key.require_secret()
    if wrong := method.audit_key(opened.key).wrong:
        raise UsageError(f"The key proves nothing: {wrong[0]}.")
    level = level or opened.facts.level

    def read_one(suspect: Suspect) -> Evidence:
        if images is None or unmarked is None:
            return read_view(method, opened.key, suspect.view, unmarked, compute)
        return read_images(method, opened.key, suspect.view, images, unmarked, compute)

    innocent: dict[str, list[float]] = {}
    for each in negatives:
        innocent.setdefault(each.source or each.digest or each.name, []).append(_rate(method, read_one(each)))
    read = [(each, read_one(each)) for each in suspects]
    tests = [_test(method, evidence, innocent, level) for _, evidence in read]
    corrected = correct_holm([test.p_value for test in tests])
    return [
        Finding(
            suspect,
            evidence,
            test,
            method.claims,
            p,
            level,
            n_readings=len(read),
            is_unmarked=suspect.digest == opened.facts.unmarked_digest,
            sources=tuple(innocent),
            on_given_images=images is not None,
        )
        for (suspect, evidence), test, p in zip(read, tests, corrected, strict=True)
    ]


def correct_together(findings: Mapping[str, Sequence[Finding]]) -> list[Finding]:
    """What several keys read, by their names: all readings of one verification share its error rate (Holm 1979)."""
    named = [replace(each, key=key) for key, found in findings.items() for each in found]
    corrected = correct_holm([each.test.p_value for each in named])
    return [replace(each, corrected_p=p, n_readings=len(named)) for each, p in zip(named, corrected, strict=True)]


def _test(method: Method, evidence: Evidence, innocent: Mapping[str, Sequence[float]], level: float) -> ValidTest:
    if method.null == "exact":
        return exact_test(evidence, level)
    return source_test(_rate(method, evidence), innocent)


def _rate(method: Method, evidence: Evidence) -> float:
    return detection_rate(errors(evidence), method.default_tau)


def say_finding(finding: Finding) -> str:
    """The answer, in one sentence."""
    name, p = finding.suspect.name, say_p(finding.corrected_p)
    if finding.n_readings > 1:
        p += f" after correction for {finding.n_readings} {'readings' if finding.key else 'suspects'}"
    if finding.key:
        p = f"key {finding.key}, {p}"
    basis = _say_basis(finding)
    if finding.claim:
        what = (
            "descends from the marked release"
            if finding.claims == "marked release"
            else "shares its lineage with the protected model"
        )
        return f"CLAIM: {name} {what} ({p}, {basis})." + (_IF_CHOSEN_BLINDLY if finding.on_given_images else "")
    if finding.test.basis == "calibrated" and not finding.sources:
        return f"NO CLAIM on {name}: this method has no exact null and no innocent models were given (--negative REF)."
    if finding.is_unmarked:
        return f"NO CLAIM on {name}: it is the unmarked model itself, weight by weight, and no mark can be in it."
    return f"NO CLAIM on {name} ({p}, {basis}; a claim takes {finding.level:g} or less)."


_IF_CHOSEN_BLINDLY: Final = " That holds if whoever chose these images did not have the key."


def say_p(p: float) -> str:
    """A p-value in a sentence: `p = 0.02`, `p < 1e-300`."""
    return f"p {show_p(p)}" if p <= _SMALLEST else f"p = {show_p(p)}"


def show_p(p: float) -> str:
    """A p-value as people read it; floating point has none between 1e-300 and 0."""
    return f"{p:.2g}" if p >= 1e-3 else f"{p:.1e}" if p > _SMALLEST else f"< {_SMALLEST:g}"


def _say_basis(finding: Finding) -> str:
    if finding.test.basis == "exact":
        return f"exact: {finding.n_right} of {finding.n_symbols} symbols are right, where chance gives {1 / finding.evidence.alphabet:.0%}"
    return f"by rank among {len(finding.sources)} sources of innocent models, as they were named, which support {finding.test.level:.2g} at best"


LIMITS: Mapping[ClaimKind, str] = {
    "marked release": "who made the key, or when; nor that other models of the same origin are innocent.",
    "lineage": "that the release was copied, for siblings of the same origin read as well; nor who made the key, or when.",
}
"""What a claim of each kind does not say."""


def describe_finding(finding: Finding) -> dict[str, Any]:
    """A finding as JSON, nothing of it secret."""
    return {
        "suspect": finding.suspect.name,
        "digest": finding.suspect.digest,
        "claim": finding.claim,
        "claims": finding.claims,
        "p_value": finding.test.p_value,
        "corrected_p_value": finding.corrected_p,
        "basis": finding.test.basis,
        "level": finding.level,
        "right": finding.n_right,
        "symbols": finding.n_symbols,
        "alphabet": finding.evidence.alphabet,
        "sources": list(finding.sources),
        "facts": dict(finding.evidence.facts),
        "reading": digest_reading(finding.evidence),
    }


def digest_reading(evidence: Evidence) -> str:
    """SHA-256 of which symbols were right: the same for whoever reads the same, and shows nothing of the key."""
    import hashlib

    right = evidence.expected == evidence.observed
    return hashlib.sha256(f"{right.shape} {evidence.alphabet}".encode() + right.astype("u1").tobytes()).hexdigest()


def open_suspect(name: str, model: VisionModel, method: Method, source: str = "") -> Suspect:
    """A suspect whose model is at hand, seen as the method may see it; its answers are kept for evidence."""
    from amb.ownership.answers import RecordedView

    return Suspect(name, model.full_digest(), RecordedView(model, method.access), source)
