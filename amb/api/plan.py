"""What a run will do: the suspects that a key will be read on, and the plan of suite x methods x suspects."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Final, overload

from amb.api.interfaces import Attack, Method, Suite
from amb.api.records import Cell
from amb.api.spec import parse_chain
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
class Suspects(Sequence[Suspect]):
    """The suspects of a plan: innocent ones, forged keys, the control, attacked ones.

    Those of chains are made when they are looked at, for of a million of them nobody needs more than one at a time.
    Pickled, they are the tuple of all.
    """

    innocent: tuple[Suspect, ...]
    forgeries: tuple[str | Attack, ...]
    """Chains, as text or a component of one's own; each is read on every bare model."""
    attacks: tuple[str | Attack, ...]
    """Other chains."""
    make: Callable[[str | Attack], tuple[Attack, ...]] = field(compare=False, repr=False)
    """The attacks of a chain, without links that do nothing."""

    @cached_property
    def digest(self) -> str:
        """Of what every suspect is: found once, for the plans of all seeds share it."""
        return _digest_all(self)

    @cached_property
    def bare(self) -> tuple[Suspect, ...]:
        """The innocent models that the suite brings as they are."""
        return tuple(each for each in self.innocent if not each.attacks)

    def __len__(self) -> int:
        return len(self.innocent) + len(self.forgeries) * len(self.bare) + 1 + len(self.attacks)

    @overload
    def __getitem__(self, at: int) -> Suspect: ...
    @overload
    def __getitem__(self, at: slice) -> tuple[Suspect, ...]: ...
    def __getitem__(self, at: int | slice) -> Suspect | tuple[Suspect, ...]:
        if isinstance(at, slice):
            return tuple(self._make_suspect(each) for each in range(len(self))[at])
        return self._make_suspect(range(len(self))[at])

    def __iter__(self) -> Iterator[Suspect]:
        return map(self._make_suspect, range(len(self)))

    def __reduce__(self) -> tuple[type[tuple[Suspect, ...]], tuple[list[Suspect]]]:
        return tuple, (list(self),)

    def _make_suspect(self, at: int) -> Suspect:
        if at < len(self.innocent):
            return self.innocent[at]
        at -= len(self.innocent)
        if at < len(self.forgeries) * len(self.bare):
            forgery, model = divmod(at, len(self.bare))
            return self._forge(self.forgeries[forgery], self.bare[model])
        at -= len(self.forgeries) * len(self.bare)
        return self._attack(self.attacks[at - 1]) if at else Suspect("unattacked", EMBEDDED, (), "positive")

    def _forge(self, chain: str | Attack, innocent: Suspect) -> Suspect:
        name = f"{name_chain(chain)} on {innocent.name}"
        return replace(innocent, name=name, attacks=self.make(chain), kind="forged")

    def _attack(self, chain: str | Attack) -> Suspect:
        attacks = self.make(chain)
        group = "+".join(attack.name for attack in attacks)
        return Suspect(name_chain(chain), EMBEDDED, attacks, "positive", group=group)


def digest_suspects(suspects: Sequence[Suspect]) -> str:
    """A digest of what every suspect is, its attacks with their source."""
    return suspects.digest if isinstance(suspects, Suspects) else _digest_all(suspects)


def _digest_all(suspects: Iterable[Suspect]) -> str:
    digest = hashlib.sha256()
    for each in suspects:
        own = [each.name, each.source, each.kind, each.sibling, each.group]
        digest.update(json.dumps([own, [attack.definition() for attack in each.attacks]]).encode())
    return digest.hexdigest()[:32]


def name_chain(chain: str | Attack) -> str:
    """A chain as the user wrote it, less its links that do nothing."""
    if isinstance(chain, Attack):
        return str(chain)
    if "none" not in chain:
        return chain
    return "+".join(str(link) for link in parse_chain(chain) if link.name != "none")


@dataclass(frozen=True)
class Plan:
    """Suite x methods x suspects, at one seed."""

    suite: Suite
    owner: str
    """Reference of the model to protect."""
    methods: tuple[Method, ...]
    suspects: Sequence[Suspect]
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
        return list(dict.fromkeys([self.owner, *(each.source for each in self.innocent)]))

    @property
    def innocent(self) -> Sequence[Suspect]:
        """The negatives."""
        if isinstance(self.suspects, Suspects):
            return self.suspects.innocent
        return [each for each in self.suspects if each.kind == "negative"]

    @property
    def n_cells(self) -> int:
        """How many cells the run has."""
        return len(self.methods) * len(self.suspects)

    def cells(self) -> list[Cell]:
        """Every cell of the run, in the order in which they are computed."""
        return list(self.stream_cells())

    def stream_cells(self) -> Iterator[Cell]:
        """As `cells`, one after the other: a million of them are no list."""
        return (self.cell(method, suspect) for method in self.methods for suspect in self.suspects)

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
