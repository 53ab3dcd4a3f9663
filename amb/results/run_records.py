"""What is said of a run beside its cells, as a value; what an old or a foreign document does not say is unknown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class MachineRecord:
    """What a run was computed on."""

    system: str
    architecture: str
    cpus: str
    """How many, or `unknown`."""


@dataclass(frozen=True)
class ProfileRecord:
    """Activation profile of the owner, an entry for each block."""

    top: Sequence[float]
    median: Sequence[float]
    massive_share: Sequence[float | None]
    block: int
    block_choice: str
    n_images: int | None


@dataclass(frozen=True)
class EmbeddingRecord:
    """What is said of an embedding: its cost, utility before and after, similarity."""

    method: str
    access: str | None
    """What the method asks of a suspect."""
    seconds: float | None
    peak_memory_mib: float | None
    report: Mapping[str, Any]
    utility_before: Mapping[str, float]
    utility_after: Mapping[str, float]
    similarity: Mapping[str, float | None]


@dataclass(frozen=True)
class RunRecord:
    """A run; docs/schema.md says what each field means. What is not said is None, an unknown device is called so."""

    id: str
    suite: str
    owner: str
    folder: str
    sweep: str | None
    methods: Sequence[str]
    n_cells: int | None
    """That the whole run has; older documents do not say it."""
    seed: int | None
    alpha: float | None
    started: str | None
    device: str
    compute: Mapping[str, Any] | None
    versions: Mapping[str, str]
    plugins: Mapping[str, str]
    machine: MachineRecord
    git_commit: str | None
    jobs: int | None
    """Processes side by side; older documents do not say it, and had one."""
    profile: ProfileRecord | None
    embeddings: Sequence[EmbeddingRecord]
    links: Mapping[str, str]

    @property
    def place(self) -> str:
        """Suite and owner as titles name them."""
        return f"{self.suite} ({self.owner})"


def largest_fall(runs: Iterable[RunRecord], method: str) -> float | None:
    """The largest fall of any utility figure by embedding a method; None where no run says it."""
    return max(
        (
            before - each.utility_after[name]
            for run in runs
            for each in run.embeddings
            if each.method == method
            for name, before in each.utility_before.items()
        ),
        default=None,
    )


def parse_run(data: Mapping[str, Any]) -> RunRecord:
    """The `run` part of a document."""
    return RunRecord(
        id=data["id"],
        suite=data["suite"],
        owner=data["owner"],
        folder=data.get("folder") or "",
        sweep=data.get("sweep"),
        methods=data.get("methods") or (),
        n_cells=data.get("n_cells"),
        seed=data.get("seed"),
        alpha=data.get("alpha"),
        started=data.get("started"),
        device=data.get("device") or "unknown device",
        compute=data.get("compute"),
        versions=data.get("versions") or {},
        plugins=data.get("plugins") or {},
        machine=_parse_machine(data.get("machine") or {}),
        git_commit=data.get("git_commit"),
        jobs=data.get("jobs"),
        profile=_parse_profile(data["profile"]) if data.get("profile") else None,
        embeddings=[_parse_embedding(each) for each in data.get("embeddings") or ()],
        links=data.get("links") or {},
    )


def _parse_machine(data: Mapping[str, Any]) -> MachineRecord:
    return MachineRecord(
        system=data.get("system", "unknown"),
        architecture=data.get("architecture", "machine"),
        cpus=str(data.get("cpus", "unknown")),
    )


def _parse_profile(data: Mapping[str, Any]) -> ProfileRecord:
    return ProfileRecord(
        top=data["top"],
        median=data["median"],
        massive_share=data.get("massive_share") or [None] * len(data["top"]),
        block=data["block"],
        block_choice=data.get("block_choice") or "",
        n_images=data.get("n_images"),
    )


def _parse_embedding(data: Mapping[str, Any]) -> EmbeddingRecord:
    return EmbeddingRecord(
        method=data["method"],
        access=data.get("access"),
        seconds=data.get("seconds"),
        peak_memory_mib=data.get("peak_memory_mib"),
        report=data.get("report") or {},
        utility_before=data.get("utility_before") or {},
        utility_after=data.get("utility_after") or {},
        similarity=data.get("similarity") or {},
    )
