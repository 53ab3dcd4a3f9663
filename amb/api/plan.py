"""What a run will do: the suspects that a key will be read on, and the plan of suite x methods x suspects."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Final

from amb.api.interfaces import Attack, Method, Suite
from amb.api.records import Cell
from amb.api.types import SuspectKind
from amb.runtime.compute import Compute

EMBEDDED: Final = "embedded"
"""Source of the positive suspects: the model that the method returned."""


@dataclass(frozen=True)
class Suspect:
    """A model that the key will be read on: a source and what is done to it."""

    name: str
    """What tables call it."""
    source: str
    """`EMBEDDED`, or a model reference."""
    attacks: tuple[Attack, ...]
    kind: SuspectKind
    sibling: bool = False
    group: str = ""
    """Class of a negative, or the family of attacks that made a positive."""

    @property
    def attack(self) -> str:
        """Canonical spec of the chain."""
        return "+".join(attack.canonical() for attack in self.attacks) or "none"

    @property
    def is_bare(self) -> bool:
        """An innocent model as the suite brings it, which has nothing to do with the owner's: forged keys are read on it."""
        return self.kind == "negative" and not self.sibling and not self.attacks


@dataclass(frozen=True)
class Plan:
    """Suite x methods x suspects, at one seed."""

    suite: Suite
    owner: str
    """Reference of the model to protect."""
    methods: tuple[Method, ...]
    suspects: tuple[Suspect, ...]
    """Negatives first: verdicts on the positives rest on them."""
    seed: int
    tau: int | None
    """None takes each method's own."""
    alpha: float
    level: float = 1e-6
    """False positive rate of a claim by methods whose null is exact."""
    compute: Compute = field(default_factory=Compute)

    def on(self, compute: Compute) -> Plan:
        """The same plan, computed in another way."""
        return replace(self, compute=compute)

    def references(self) -> list[str]:
        """The models that have to be there, the owner first."""
        return list(dict.fromkeys([self.owner, *(each.source for each in self.suspects if each.source != EMBEDDED)]))

    def cells(self) -> list[Cell]:
        """Every cell of the run, in the order in which they are computed."""
        return [self.cell(method, suspect) for method in self.methods for suspect in self.suspects]

    def cell(self, method: Method, suspect: Suspect) -> Cell:
        """The cell of a method and a suspect."""
        return Cell(
            method=method.canonical(),
            attack=suspect.attack,
            suspect=suspect.name,
            kind=suspect.kind,
            sibling=suspect.sibling,
            seed=self.seed,
            source=suspect.source,
            group=suspect.group,
        )

    def tau_of(self, method: Method) -> int:
        """The threshold of a method in this run."""
        return method.default_tau if self.tau is None else self.tau
