"""A cell as a value: parsed once where a document enters, so that nothing later looks a figure up by its name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

from amb.api.records import CellResult, Verdict
from amb.api.types import Status, SuspectKind
from amb.results.versions import upgrade_cell

if TYPE_CHECKING:
    from amb.api.run import Run

ShownKind = Literal["positive", "negative", "sibling", "forged"]
"""The kinds of suspects as tables name them."""


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
    source: str | None
    """None, as with `group` and `destroyed`, where a document is too old to say."""
    group: str | None
    status: Status
    cached: bool
    reason: str
    verdict: Verdict | None
    utility: Mapping[str, float]
    utility_drop: float | None
    destroyed: bool | None
    report: Mapping[str, Mapping[str, Any]]
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
    def attack_names(self) -> list[str]:
        """The attacks of the chain without their parameters; the text as it is where it does not parse."""
        return [part.partition(":")[0] for part in self.attack.split("+")]

    @property
    def is_attacked(self) -> bool:
        """Whether anything was done to make the suspect."""
        return self.attack != "none"

    @property
    def family(self) -> str:
        """The families of attacks that made a positive, the spec of a forgery; empty for the unattacked model."""
        if self.kind == "forged":
            return self.attack
        return self.group or ("+".join(self.attack_names) if self.is_attacked else "")

    @property
    def origin(self) -> str:
        """The model that the suspect was made from: suspects of one origin are not independent."""
        return self.owner if self.sibling else self.source or self.suspect

    @property
    def place(self) -> str:
        """Suite and owner as titles name them."""
        return f"{self.suite} ({self.owner})"

    @property
    def name(self) -> str:
        """The cell as messages name it."""
        return f"{self.method} on {self.suspect}, seed {self.seed}"


@dataclass(frozen=True)
class JudgedRecord(CellRecord):
    """A cell that has a verdict."""

    verdict: Verdict

    @property
    def rate(self) -> float:
        """R(tau), the detection rate at the tau in use."""
        return self.verdict.detection_rate

    @property
    def claim(self) -> bool:
        """Whether the suspect is claimed."""
        return self.verdict.claim

    def rate_at(self, tau: int | None) -> float:
        """R at another tau; beyond the curve at its end."""
        curve = self.verdict.curve
        return self.rate if tau is None else curve[min(tau, len(curve) - 1)]


def parse_cell(data: Mapping[str, Any]) -> CellRecord:
    """A cell of a document, with what its run says of all its cells; of any readable schema."""
    said = upgrade_cell(data)
    fields = {name: _take_value(said, name, default) for name, default in _DEFAULTS.items()}
    fields |= {name: said[name] for name in _REQUIRED}
    if said["status"] == "ok" and said.get("detection_rate") is not None:
        return JudgedRecord(**fields, verdict=_parse_verdict(said))
    return CellRecord(**fields, verdict=None)


def record_of(result: CellResult, run: Run) -> CellRecord:
    """A cell of a run that goes on."""
    where = {"suite": run.plan.suite.canonical(), "owner": run.plan.owner, "sweep": run.sweep, "run": run.id}
    return parse_cell({**result.to_json(), **where})


def _take_value(said: Mapping[str, Any], name: str, default: Any) -> Any:
    value = said.get(name)
    return default if value is None else value


def _parse_verdict(said: Mapping[str, Any]) -> Verdict:
    figures = {name: said[name] for name in _VERDICT if name in said}
    return Verdict(**{**figures, "interval": tuple(said["interval"]), "curve": tuple(said["curve"])})


_VERDICT: Final = tuple(Verdict.__dataclass_fields__)
_REQUIRED: Final = ("suite", "owner", "run", "method", "attack", "suspect", "kind", "seed", "status")
_DEFAULTS: Final[Mapping[str, Any]] = {
    "sweep": None, "sibling": False, "source": None, "group": None, "cached": False, "reason": "", "utility": {},
    "utility_drop": None, "destroyed": None, "report": {}, "seconds": {}, "peak_memory_mib": None, "digests": {},
}  # fmt: skip
