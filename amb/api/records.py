"""The values that flow through a run: keys, embeddings, evidence, verdicts, cells and their results. All frozen."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from amb.api.types import Access, Basis, Status, SuspectKind
from amb.errors import AmbError, StoreError, UsageError, shortened

if TYPE_CHECKING:
    import numpy as np

    from amb.api.vision import VisionModel

LARGEST_ALPHABET: Final = 2**20
"""Symbols of the largest alphabet: no classifier has more classes, and tests go through all of them."""


@dataclass(frozen=True)
class Key:
    """The owner's secret: all that is needed to read the mark on a suspect. Never logged, tracked or reported."""

    method: str
    """Canonical spec of the method that made it."""
    owner: str
    """Digest of the owner model's weights."""
    tensors: Mapping[str, np.ndarray] = field(repr=False)
    """Arrays by name: trigger images, messages, network weights."""
    facts: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """Small JSON values, such as the block and the sizes of the networks."""
    reproducible: bool = True
    """It follows from the seed, the suite and the method, which results publish: right for a benchmark, and no secret."""

    def require_secret(self) -> None:
        """Raise UsageError where anybody could make this key again: for whatever claims ownership with it."""
        if self.reproducible:
            raise UsageError(
                f"The key {self.digest} of {self.method} follows from its seed, suite and method, so anybody can make it "
                "again and it proves nothing. Protect the model with a key that is drawn at random."
            )

    @property
    def digest(self) -> str:
        """SHA-256 over everything in the key, 32 digits of it: identifies it without revealing it."""
        return self.full_digest[:32]

    @cached_property
    def full_digest(self) -> str:
        """All 64 digits of it."""
        import hashlib

        digest = hashlib.sha256(json.dumps([self.method, self.owner, self.facts], sort_keys=True).encode())
        for name in sorted(self.tensors):
            array = self.tensors[name]
            digest.update(f"{name} {array.dtype} {array.shape}".encode() + array.tobytes())
        return digest.hexdigest()

    def save(self, path: Path) -> None:
        """Write one safetensors file that only its owner can read (mode 600)."""
        import os

        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(self.to_bytes())

    def to_bytes(self) -> bytes:
        """What `save` writes."""
        import numpy as np
        from safetensors.numpy import save

        header = {
            "method": self.method,
            "owner": self.owner,
            "facts": json.dumps(self.facts),
            "reproducible": json.dumps(self.reproducible),
        }
        return save({name: np.ascontiguousarray(array) for name, array in self.tensors.items()}, header)

    @classmethod
    def load(cls, path: Path) -> Key:
        """Read a key, its header weighed before; raises StoreError where the file is not one."""
        from safetensors import SafetensorError, safe_open

        from amb.runtime.plain_json import parse_json_object
        from amb.runtime.safetensors_header import read_header

        try:
            read_header(path)
            with safe_open(path, framework="numpy") as file:
                header = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
            reproducible = header.get("reproducible") != "false"  # keys of before it was written are of benchmarks
            facts = parse_json_object(header["facts"].encode())
            return cls(header["method"], header["owner"], tensors, facts, reproducible)
        except (AmbError, OSError, SafetensorError, KeyError, ValueError) as error:
            raise StoreError(f"{path} is not a key file ({error}). Embed again to make a new one.") from None


@dataclass(frozen=True)
class KeyAudit:
    """What of a key follows from its secret and the unmarked model, for whoever does not trust the claimant."""

    recomputed: tuple[str, ...] = ()
    """Parts that were made again and are the same."""
    trusted: tuple[str, ...] = ()
    """Parts that could not be made again here, each with what it would take."""
    wrong: tuple[str, ...] = ()
    """Parts that are not what they have to be; a key with one of these proves nothing."""


@dataclass(frozen=True)
class Embedding:
    """What `Method.embed` returns."""

    model: VisionModel
    """The model to deploy: marked by a watermark, as it came from a fingerprint."""
    key: Key
    facts: Mapping[str, Any] = field(default_factory=dict)
    """What is worth reporting of the embedding, as JSON: steps, losses, trigger success. Nothing secret."""


@dataclass(frozen=True)
class EmbeddingFacts:
    """What is worth reporting of an embedding: its cost, utility before and after, similarity. Nothing secret."""

    method: str
    """Canonical spec."""
    access: Access
    cached: bool
    seconds: float
    peak_memory_mib: float
    report: Mapping[str, Any]
    """What the method says of it."""
    utility_before: Mapping[str, float]
    utility_after: Mapping[str, float]
    similarity: Mapping[str, float | None]
    """Of clean features before and after."""
    digests: Mapping[str, str]
    """`owner`, `model`, `key`."""


class StoredFile(NamedTuple):
    """A file of the store by its address, which is the same on every machine that sees the store."""

    kind: str
    """Of the entry: `evidence`, `profile`, ..."""
    digest: str
    """Of what the entry was computed from."""
    name: str


@dataclass(frozen=True)
class SuspectFacts:
    """What was measured on one suspect, before the verdict."""

    cached: bool
    utility: Mapping[str, float]
    seconds: Mapping[str, float]
    """`embed`, `attack`, `extract`."""
    peak_memory_mib: float
    digests: Mapping[str, str]
    """`model`, `key`, `evidence`."""
    report: Mapping[str, Any]
    """What the attacks report of their work, by attack."""
    evidence: StoredFile
    others: tuple[tuple[str, StoredFile], ...] = ()
    """Evidence of a forged key on other innocent models, on which its verdict rests."""


@dataclass(frozen=True)
class Evidence:
    """What a method measured on one suspect: the symbols it expected and the symbols it observed."""

    expected: np.ndarray  # (trials, symbols) int
    observed: np.ndarray  # (trials, symbols) int
    alphabet: int = 2
    """How many values a symbol can take: 2 for bits, the number of classes for labels."""
    facts: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Raises ValueError for anything but whole symbols of the alphabet; booleans become 0 and 1."""
        object.__setattr__(self, "alphabet", _check_alphabet(self.alphabet))
        for name in ("expected", "observed"):
            object.__setattr__(self, name, _check_symbols(name, getattr(self, name), self.alphabet))
        if self.expected.ndim != 2 or self.expected.shape != self.observed.shape or 0 in self.expected.shape:
            raise ValueError(
                f"Evidence needs two equal, non-empty (trials, symbols) arrays, "
                f"got {self.expected.shape} and {self.observed.shape}."
            )

    def save(self, path: Path) -> None:
        """Write an npz without pickled parts."""
        import numpy as np

        facts = np.frombuffer(json.dumps(self.facts).encode(), dtype=np.uint8)
        np.savez_compressed(
            path, expected=self.expected, observed=self.observed, alphabet=np.int64(self.alphabet), facts=facts
        )

    @classmethod
    def load(cls, path: Path) -> Evidence:
        """Read an npz; nothing is ever unpickled."""
        import numpy as np

        with np.load(path, allow_pickle=False) as file:
            facts = json.loads(file["facts"].tobytes())
            return cls(file["expected"], file["observed"], int(file["alphabet"]), facts)


def _check_alphabet(alphabet: Any) -> int:
    """How many symbols there are. Raises ValueError."""
    from operator import index

    try:
        n = 0 if isinstance(alphabet, bool) else index(alphabet)
    except TypeError:
        n = 0
    if not 1 <= n <= LARGEST_ALPHABET:
        text = f"The evidence's alphabet is a whole number, 1 to {LARGEST_ALPHABET:,}, not {shortened(alphabet)}."
        raise ValueError(text)
    return n


def _check_symbols(name: str, symbols: Any, alphabet: int) -> np.ndarray:
    """The symbols, whole numbers in 0 ... alphabet - 1. Raises ValueError."""
    import numpy as np

    if not isinstance(symbols, np.ndarray):
        raise ValueError(f"The evidence's {name} is a {type(symbols).__name__}, not a numpy array.")  # noqa: TRY004 (its contents count)
    if symbols.dtype == np.bool_:
        return symbols.astype(np.uint8)
    rule = f"symbols are whole numbers, 0 to {alphabet - 1}"
    if not np.issubdtype(symbols.dtype, np.integer):
        raise ValueError(
            f"The evidence's {name} has the type {symbols.dtype}; {rule}. Round or threshold what was read."
        )
    if symbols.size and (symbols.min() < 0 or symbols.max() >= alphabet):
        wrong = symbols[(symbols < 0) | (symbols >= alphabet)][0]
        raise ValueError(f"The evidence's {name} holds {wrong}; {rule}, for its alphabet is {alphabet}.")
    return symbols


@dataclass(frozen=True)
class Verdict:
    """What `amb.evaluation.verdict.decide` concludes from a suspect's evidence."""

    claim: bool
    """Whether the suspect may be claimed: `p_value` is at most `level`."""
    p_value: float
    """Probability that a model made without the key reads as well as this one, valid over models."""
    basis: Basis
    """What `p_value` rests on."""
    level: float
    """False positive rate of the claim: as asked where the null is exact; calibrated, the smallest that the sources support."""
    n_sources: int
    """Sources of the negatives: models that were made from one are alike, and count once."""
    alphabet: int
    """Values that a symbol can take."""
    paper_rule: bool
    """The rule of eq. 13: the detection rate exceeds `bound`. It is no test of a model, and nothing rests on it."""
    bound: float
    """Largest detection rate that innocent models reach with probability above alpha (eq. 13)."""
    trial_fpr: float
    """P[rho <= tau] of one trial where symbols are fair draws (eq. 6)."""
    detection_rate: float
    """R(tau), share of trials with at most tau wrong symbols (eq. 5)."""
    interval: tuple[float, float]
    """Two-sided 95 % Clopper-Pearson interval of the detection rate."""
    curve: tuple[float, ...]
    """R(tau) for tau = 0 ... number of symbols."""
    bit_error_rate: float
    """Share of wrong symbols over all trials."""
    tau: int
    alpha: float
    p_values: Mapping[str, float]
    """`binomial`, `permutation`, `calibrated`: three nulls, see `amb.evaluation.verdict`."""
    margin: float | None
    """R less the highest R among the negatives; None where there are none."""
    n_trials: int
    n_negatives: int
    """Negatives that the bound, the margin and the calibrated p-value rest on."""
    fpr_supported: float
    """Smallest model-level false positive rate that so many negatives can support, 1 / (n + 1)."""


@dataclass(frozen=True)
class Cell:
    """One combination of a run: a method, read on one suspect."""

    method: str
    attack: str
    """Canonical spec of what made the suspect from its source; `none` where nothing did."""
    suspect: str
    kind: SuspectKind
    sibling: bool
    """A negative that comes from the owner's own, unmarked model."""
    seed: int
    source: str = ""
    """Reference of the model that the suspect was made from, or `embedded`; suspects of one source are not independent."""
    group: str = ""
    """Class of a negative, or the families of attacks that made a positive."""


def find_source(cell: Cell) -> str:
    """The source that an innocent model counts as: every sibling comes from the owner's own model."""
    return "the owner's model" if cell.sibling else cell.source or cell.suspect


@dataclass(frozen=True)
class CellResult:
    """A cell and what came of it."""

    cell: Cell
    status: Status
    cached: bool = False
    reason: str = ""
    """Why a cell was skipped or failed."""
    verdict: Verdict | None = None
    utility: Mapping[str, float] = field(default_factory=dict)
    utility_drop: float | None = None
    """Share of the protected model's utility that a positive suspect has lost."""
    destroyed: bool = False
    """It lost more than the suite tolerates, so it counts neither for nor against robustness."""
    report: Mapping[str, Any] = field(default_factory=dict)
    """What the attacks report of their work, by attack."""
    seconds: Mapping[str, float] = field(default_factory=dict)
    """`embed`, `attack`, `extract`, as measured when they were computed."""
    peak_memory_mib: float | None = None
    digests: Mapping[str, str] = field(default_factory=dict)
    evidence: Path | None = None
    """Where this machine has it."""

    @classmethod
    def of(cls, cell: Cell, facts: SuspectFacts, evidence: Path) -> CellResult:
        """A cell whose suspect was read, without a verdict yet; `evidence` is where this machine has it."""
        measured = {name: value for name, value in vars(facts).items() if name not in {"others", "evidence"}}
        return cls(cell, "ok", **measured, evidence=evidence)

    def to_json(self) -> dict[str, Any]:
        """The cell as documented in docs/schema.md."""
        verdict = asdict(self.verdict) if self.verdict else dict.fromkeys(_VERDICT_FIELDS)
        return {
            **asdict(self.cell),
            "status": self.status,
            "cached": self.cached,
            "reason": self.reason,
            **verdict,
            "utility": dict(self.utility),
            "utility_drop": self.utility_drop,
            "destroyed": self.destroyed,
            "report": dict(self.report),
            "seconds": dict(self.seconds),
            "peak_memory_mib": self.peak_memory_mib,
            "digests": dict(self.digests),
        }


_VERDICT_FIELDS = tuple(Verdict.__dataclass_fields__)
