"""Results as values: every cell of a document parsed once, so that nothing later looks a figure up by its name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from amb.api.records import CellResult, Verdict
from amb.api.types import Status, SuspectKind

if TYPE_CHECKING:
    from amb.api.run import Run

ShownKind = Literal["positive", "negative", "sibling", "forged"]
"""The kinds of suspects as tables name them."""
_VERDICT = tuple(Verdict.__dataclass_fields__)
_RENAMED = {"utility_lost": "utility_drop"}
"""Keys of documents of schema 1 that have another name since."""


@dataclass(frozen=True)
class CellRecord:
    """A cell of a run and what came of it; docs/schema.md says what each field means."""

    suite: str
    owner: str
    sweep: str | None
    run: str
    method: str
    attack: str
    suspect: str
    kind: SuspectKind
    sibling: bool
    seed: int
    source: str
    group: str
    status: Status
    cached: bool
    reason: str
    verdict: Verdict | None
    utility: Mapping[str, float]
    utility_drop: float | None
    destroyed: bool
    report: Mapping[str, Any]
    seconds: Mapping[str, float | None]
    peak_memory_mib: float | None
    digests: Mapping[str, str]

    @property
    def shown_kind(self) -> ShownKind:
        """`positive`, `negative`, `sibling` or `forged`."""
        return "sibling" if self.sibling and self.kind == "negative" else self.kind

    @property
    def method_name(self) -> str:
        """The method without its parameters."""
        return self.method.partition(":")[0]

    @property
    def name(self) -> str:
        """The cell as messages name it."""
        return f"{self.method} on {self.suspect}, seed {self.seed}"


@dataclass(frozen=True)
class JudgedRecord(CellRecord):
    """A cell that has a verdict."""

    verdict: Verdict


@dataclass(frozen=True)
class ResultSet:
    """Finished runs: what is said of each, and every cell once."""

    runs: Sequence[Mapping[str, Any]]
    """Facts of each run, as its document has them."""
    cells: Sequence[CellRecord]
    about: str = ""
    """Suite and owner, where all cells are of one."""


def parse_results(document: Mapping[str, Any]) -> ResultSet:
    """The results of a document of one run, or of many."""
    if "run" in document:
        run = document["run"]
        return ResultSet([run], [parse_cell({**cell, **_where(run)}) for cell in document["cells"]])
    return ResultSet(document["runs"], [parse_cell(cell) for cell in document["cells"]])


def parse_cell(data: Mapping[str, Any]) -> CellRecord:
    """A cell of a report's document, of this schema or the one before."""
    said = {_RENAMED.get(name, name): value for name, value in data.items()}
    verdict = _parse_verdict(said) if said["status"] == "ok" and said.get("detection_rate") is not None else None
    fields = {name: said.get(name, default) for name, default in _DEFAULTS.items()}
    kind = CellRecord if verdict is None else JudgedRecord
    return kind(**{**fields, **{name: said[name] for name in _REQUIRED}}, verdict=verdict)  # type: ignore[arg-type]


def record_of(result: CellResult, run: Run) -> CellRecord:
    """A cell of a run that goes on."""
    where = {"suite": run.plan.suite.canonical(), "owner": run.plan.owner, "sweep": run.sweep, "run": run.id}
    return parse_cell({**result.to_json(), **where})


def _parse_verdict(said: Mapping[str, Any]) -> Verdict:
    figures = {name: said[name] for name in _VERDICT if name in said}
    return Verdict(**{**figures, "interval": tuple(said["interval"]), "curve": tuple(said["curve"])})


def _where(run: Mapping[str, Any]) -> dict[str, Any]:
    return {"suite": run["suite"], "owner": run["owner"], "sweep": run.get("sweep"), "run": run["id"]}


_REQUIRED = ("suite", "owner", "run", "method", "attack", "suspect", "kind", "seed", "status")
_DEFAULTS: dict[str, Any] = {
    "sweep": None, "sibling": False, "source": "", "group": "", "cached": False, "reason": "", "utility": {},
    "utility_drop": None, "destroyed": False, "report": {}, "seconds": {}, "peak_memory_mib": None, "digests": {},
}  # fmt: skip
