"""Replaying somebody's evidence on one's own machine: what was verified, what is taken on trust, what is refused."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from math import isclose
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

from amb.api.interfaces import Method
from amb.errors import AmbError, UsageError
from amb.evaluation.claims import exact_test
from amb.evaluation.rates import binomial_p
from amb.ownership.answers import AnsweredView, play_back
from amb.ownership.attestation import Statement, verify_envelope
from amb.ownership.commitment import Commitment
from amb.ownership.documents import parse_document
from amb.ownership.evidence import COMMITMENT, ENVELOPE, KEY_FOLDER, RECEIPTS, STATEMENT, Evidence
from amb.ownership.files import write_new
from amb.ownership.key_facts import OpenedKey
from amb.ownership.reading import read_images
from amb.ownership.receipts import check_receipt, read_receipts
from amb.ownership.verification import Finding, Suspect, describe_finding, say_p, verify
from amb.runtime.compute import Compute
from amb.runtime.scratch import open_scratch

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.x509 import Certificate
    from torch import Tensor

    from amb.api.vision import VisionModel

Status = Literal["verified", "trusted", "refused"]
Outcome = Literal["stands", "refused", "not decided"]
READING: Final = "the reading"
"""The one step without which nothing stands."""
_PLAIN: Final = re.compile(r"[\w][\w.-]{0,200}", re.ASCII)


class Step(NamedTuple):
    """One thing that a judge looks at."""

    what: str
    status: Status
    """`verified`: by this machine. `trusted`: nobody has shown it here. `refused`: it is not so."""
    text: str


@dataclass(frozen=True)
class Bench:
    """What the judge brings: everything but the evidence itself. What is missing is taken on trust."""

    suspect: Suspect | None = None
    opened: OpenedKey | None = None
    unmarked: Callable[[], VisionModel] | None = None
    unmarked_name: str = ""
    """Where that was found, and who said so."""
    negatives: Sequence[Suspect] = ()
    signers: Sequence[Ed25519PublicKey] = ()
    certificates: Sequence[Certificate] = ()
    suspect_date: datetime | None = None
    """When the suspect was first seen."""
    n_keys: int | None = None
    """Keys that the claimant has registered; the claim has to hold for the best of them."""
    images: Tensor | None = None
    """Images of the judge's choice, (n, 3, height, width) in [0, 1]."""
    level: float | None = None
    compute: Compute | None = None


@dataclass(frozen=True)
class Judgement:
    """All steps, in order."""

    steps: tuple[Step, ...]
    claim: bool
    """Whether the evidence claims the suspect."""
    level: float
    """Largest p that is claimed at."""

    @property
    def outcome(self) -> Outcome:
        """`refused` where a step is, or nothing is claimed; `not decided` where the mark was not read here."""
        if not self.claim or any(step.status == "refused" for step in self.steps):
            return "refused"
        read = any(step.what == READING and step.status == "verified" for step in self.steps)
        return "stands" if read else "not decided"

    @property
    def on_trust(self) -> tuple[str, ...]:
        """What was not verified, once each."""
        return tuple(dict.fromkeys(step.what for step in self.steps if step.status == "trusted"))


def judge(evidence: Evidence, method: Method, bench: Bench) -> Judgement:
    """Replay an evidence file, step by step. Raises UsageError where it cannot be read at all."""
    statement, signed = _read_statement(evidence, bench)
    reading, finding = _replay(evidence, method, bench)
    steps = [
        _check_members(evidence, statement),
        signed,
        _check_suspect(evidence, bench),
        *_check_commitment(evidence, statement, bench),
        *_check_key(method, bench),
        reading,
        *_read_own_images(method, bench),
        *_check_negatives(method, bench),
        _count_keys(evidence, bench, finding),
    ]
    level = bench.level or evidence.finding.get("level")
    return Judgement(tuple(steps), bool(evidence.finding.get("claim")), level if isinstance(level, float) else 0.0)


def _read_statement(evidence: Evidence, bench: Bench) -> tuple[Statement, Step]:
    what = "who says so"
    if ENVELOPE not in evidence.members:
        statement = parse_document(evidence.members.get(STATEMENT, b""), Statement, "The statement")
        return statement, Step(what, "trusted", "the statement is not signed")
    if bench.signers:
        try:
            verified = verify_envelope(evidence.members[ENVELOPE], bench.signers)
        except AmbError as error:
            return _read_unverified(evidence), Step(what, "refused", str(error))
        return verified.statement, Step(what, "verified", f"signed by {verified.signers[0]}")
    return _read_unverified(evidence), Step(what, "trusted", "signed; --signer PUBLIC-KEY checks by whom")


def _read_unverified(evidence: Evidence) -> Statement:
    from amb.ownership.attestation import Envelope, decode_base64

    envelope = parse_document(evidence.members[ENVELOPE], Envelope, "The signed statement")
    return parse_document(decode_base64(envelope.payload, "payload"), Statement, "The signed statement")


def _check_members(evidence: Evidence, statement: Statement) -> Step:
    what = "the file is whole"
    named = {subject.name: subject.digest.sha256 for subject in statement.subject[1:]}
    members = {name: data for name, data in evidence.members.items() if name not in {STATEMENT, ENVELOPE}}
    wrong = sorted(name for name in named.keys() | members.keys() if _hash(members.get(name)) != named.get(name))
    if wrong:
        return Step(what, "refused", f"{wrong[0]} is not what the statement says")
    return Step(what, "verified", f"{len(members)} members have the digests that the statement names")


def _hash(data: bytes | None) -> str | None:
    return None if data is None else hashlib.sha256(data).hexdigest()


def _check_suspect(evidence: Evidence, bench: Bench) -> Step:
    what, digest = "the suspect", evidence.finding.get("digest")
    if digest is None:
        return Step(what, "trusted", "nobody has its weights here; its answers are in the evidence")
    if bench.suspect is None:
        return Step(what, "trusted", "not given; --suspect compares it")
    if bench.suspect.digest != digest:
        return Step(
            what, "refused", f"the evidence is about {digest[:16]}..., and the model given is {_shorten(bench.suspect)}"
        )
    return Step(what, "verified", f"its tensors have the digest {digest[:16]}...")


def _shorten(suspect: Suspect) -> str:
    return f"{suspect.digest[:16]}..." if suspect.digest else "known by its answers alone"


# What was fixed before


def _check_commitment(evidence: Evidence, statement: Statement, bench: Bench) -> Iterator[Step]:
    what = "what was fixed before"
    if COMMITMENT not in evidence.members:
        yield Step(what, "trusted", "there is no commitment, so the key may have been made after the suspect")
        return
    commitment = parse_document(evidence.members[COMMITMENT], Commitment, "The commitment")
    registered = statement.predicate.pre_registration
    if (
        registered is None
        or registered.value != commitment.digest
        or commitment.method != evidence.finding.get("method")
    ):
        yield Step(what, "refused", "the commitment is not the one that the statement names, or of another method")
        return
    levels = [evidence.finding.get("level"), *([bench.opened.facts.level] if bench.opened else [])]
    if any(not isinstance(level, float | int) or level > commitment.level for level in levels):
        yield Step(
            what, "refused", f"it was committed to claim at {commitment.level:g}, and the evidence claims at more"
        )
        return
    yield Step(what, "verified", f"method and level are those of sha256:{commitment.digest[:16]}...")
    yield _check_date(evidence, commitment, bench)
    if bench.opened is not None:
        same = commitment.check_key(bench.opened.salt, bench.opened.data)
        text = "the key is the one that was committed to" if same else "the key is not the one that was committed to"
        yield Step("the key is that of the commitment", "verified" if same else "refused", text)


def _check_date(evidence: Evidence, commitment: Commitment, bench: Bench) -> Step:
    """A receipt that was verified decides; else the owner's clock says what it says."""
    what = "it is older than the suspect"
    try:
        dates = list(_find_dates(evidence, bench))
    except AmbError as error:
        return Step(what, "refused", str(error))
    date, shown = (min(dates), True) if dates else (_parse(commitment.created), False)
    how = "a verified time stamp" if shown else "the owner's clock alone (no receipt that can be verified here)"
    if bench.suspect_date is None:
        return Step(what, "trusted", f"dated {date:%Y-%m-%d} by {how}; --suspect-date compares it")
    if date >= bench.suspect_date:
        return Step(
            what, "refused", f"dated {date:%Y-%m-%d} by {how}, and the suspect is of {bench.suspect_date:%Y-%m-%d}"
        )
    return Step(what, "verified" if shown else "trusted", f"dated {date:%Y-%m-%d} by {how}")


def _find_dates(evidence: Evidence, bench: Bench) -> Iterator[datetime]:
    """Times of the stamps that are verified."""
    names = [name for name in evidence.members if name.startswith(RECEIPTS)]
    with open_scratch() as folder:
        path = folder / COMMITMENT
        write_new(path, evidence.members[COMMITMENT])
        (folder / RECEIPTS).mkdir()
        for name in names:
            if not _PLAIN.fullmatch(name.removeprefix(RECEIPTS)):
                raise UsageError("a receipt has a name that is no plain file's")
            write_new(folder / RECEIPTS / name.removeprefix(RECEIPTS), evidence.members[name])
        for receipt in read_receipts(path) if names else ():
            if (time := check_receipt(path, receipt, bench.certificates)) is not None:
                yield time


def _parse(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)


# The key, and the reading again


def _check_key(method: Method, bench: Bench) -> Iterator[Step]:
    what = "the key follows from its secret"
    if bench.opened is None:
        yield Step(what, "trusted", "the key was not opened; --key, or evidence with --open-key, shows it")
        return
    if bench.opened.key.reproducible:
        yield Step(what, "refused", "it follows from a seed that results publish, so anybody can make it")
        return
    audit = method.audit_key(bench.opened.key, bench.unmarked() if bench.unmarked else None)
    yield from (Step(what, "refused", text) for text in audit.wrong)
    if not audit.wrong:
        named = f" ({bench.unmarked_name})" if bench.unmarked_name else ""
        yield from (Step(what, "verified", text + named * ("unmarked" in text)) for text in audit.recomputed)
        yield from (Step(what, "trusted", text) for text in audit.trusted)


def _replay(evidence: Evidence, method: Method, bench: Bench) -> tuple[Step, Finding | None]:
    """What reading it again shows, and what was found where it was read."""
    suspect = bench.suspect or _answered_suspect(evidence, method)
    if bench.opened is None or suspect is None:
        return _check_counts(evidence, method), None
    try:
        (finding,) = verify(
            bench.opened, method, [suspect], unmarked=bench.unmarked, negatives=bench.negatives, level=bench.level, compute=bench.compute
        )  # fmt: skip
    except UsageError as error:
        return Step(READING, "refused", str(error)), None
    status, text = _compare(evidence, method, finding)
    where = "on the suspect" if bench.suspect else "on the answers in the evidence"
    return Step(READING, status, f"read again {where}{text}"), finding


def _compare(evidence: Evidence, method: Method, finding: Finding) -> tuple[Status, str]:
    """What was found against what the evidence says."""
    found, said = describe_finding(finding), evidence.finding
    if found["reading"] != said.get("reading"):
        return "refused", f", other symbols are right ({found['right']} and not {said.get('right')})"
    if method.null == "exact" and not _are_close(found["p_value"], said.get("p_value")):
        return "refused", f", {say_p(found['p_value'])}, and the evidence says {said.get('p_value')!s:.20}"
    if not finding.claim:
        return "refused", f", it claims nothing at level {finding.level:g} ({say_p(finding.corrected_p)})"
    return "verified", f": the same {found['right']} of {found['symbols']} symbols, {say_p(finding.corrected_p)}"


def _are_close(p: float, said: object) -> bool:
    """Whether two ways of computing p agree."""
    return isinstance(said, float | int) and isclose(p, said, rel_tol=1e-6, abs_tol=1e-300)


def _answered_suspect(evidence: Evidence, method: Method) -> Suspect | None:
    """The suspect's answers, where these are all that there is of it."""
    answers = evidence.answers if evidence.finding.get("digest") is None else None
    return None if answers is None else Suspect("the suspect", None, AnsweredView(play_back(answers), method.access))


def _read_own_images(method: Method, bench: Bench) -> Iterator[Step]:
    """Whether the key reads on images that the judge has chosen."""
    what = "on images of your own"
    if bench.images is None:
        yield Step(what, "trusted", "read on the key's images alone; --images FOLDER reads yours")
        return
    if bench.opened is None or bench.suspect is None or bench.unmarked is None:
        yield Step(what, "trusted", "that takes the key, the suspect and the unmarked model")
        return
    if method.null != "exact":
        yield Step(
            what, "trusted", f"not read: for {method.name}, right symbols on an innocent model are no fair coins"
        )
        return
    try:
        evidence = read_images(
            method, bench.opened.key, bench.suspect.view, bench.images, bench.unmarked, bench.compute
        )
    except UsageError as error:
        yield Step(what, "trusted", str(error))
        return
    test = exact_test(evidence, bench.level or bench.opened.facts.level)
    text = f"{int((evidence.expected == evidence.observed).sum())} of {evidence.expected.size} symbols, {say_p(test.p_value)}"
    yield Step(what, "verified" if test.claim else "refused", f"{len(bench.images)} images: {text}")


def _check_counts(evidence: Evidence, method: Method) -> Step:
    """Without the key: whether p is what so many right symbols give."""
    what, said = READING, evidence.finding
    try:
        same = _are_close(
            binomial_p(int(said["right"]), int(said["symbols"]), 1 / int(said["alphabet"])), said["p_value"]
        )
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        same = False
    if method.null == "exact" and not same:
        return Step(what, "refused", "p is not what so many right symbols give")
    return Step(what, "trusted", "not made again: that takes the key, and the suspect or its answers")


def _check_negatives(method: Method, bench: Bench) -> Iterator[Step]:
    what = "innocent models stay silent"
    if not bench.negatives or bench.opened is None or method.null != "exact":
        text = (
            "none of your own were read; --negative REF reads one"
            if not bench.negatives
            else "they set the rank of the reading"
        )
        yield Step(what, "trusted", text)
        return
    for finding in verify(bench.opened, method, bench.negatives, unmarked=bench.unmarked, level=bench.level):
        status: Status = "refused" if finding.claim else "verified"
        yield Step(what, status, f"{finding.suspect.name}: {say_p(finding.corrected_p)}")


def _count_keys(evidence: Evidence, bench: Bench, finding: Finding | None) -> Step:
    """By Bonferroni, with the p that was found here; the claimant's own can refuse, and shows nothing."""
    what, said = "how many keys there are", evidence.finding
    p, level = (
        (finding.corrected_p, finding.level)
        if finding
        else (said.get("corrected_p_value"), bench.level or said.get("level"))
    )
    if bench.n_keys is None or not isinstance(p, float | int) or not isinstance(level, float | int):
        return Step(what, "trusted", "taken for one; --keys N says how many the claimant has registered")
    together = min(1.0, p * bench.n_keys)
    text = f"the best of {bench.n_keys} has {say_p(together)} at most" + ("" if finding else ", as the claimant says")
    return Step(what, "refused" if together > level else "verified" if finding else "trusted", text)


def opened_in(evidence: Evidence) -> Mapping[str, bytes]:
    """The files of the key that the evidence opens, by name; none where it was not opened."""
    found: dict[str, Any] = {
        name.removeprefix(KEY_FOLDER): data for name, data in evidence.members.items() if name.startswith(KEY_FOLDER)
    }
    return found


def to_json(judgement: Judgement) -> dict[str, Any]:
    """A judgement as JSON."""
    steps = [step._asdict() for step in judgement.steps]
    return {
        "schema": 1,
        "outcome": judgement.outcome,
        "level": judgement.level,
        "claim": judgement.claim,
        "steps": steps,
    }
