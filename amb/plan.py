"""What a run will do, decided and checked before anything is computed or written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from amb.errors import BadParamsError
from amb.plugins import Registry
from amb.protocols import Attack, Method, Suite
from amb.records import Cell, Kind

EMBEDDED = "embedded"
"""Source of the positive suspects: the model that the method returned."""


@dataclass(frozen=True)
class Suspect:
    """A model that the key will be read on: a source and what is done to it."""

    name: str
    """What tables call it."""
    source: str
    """`EMBEDDED`, or a model reference."""
    attacks: tuple[Attack, ...]
    kind: Kind
    sibling: bool = False

    @property
    def attack(self) -> str:
        """Canonical spec of the chain."""
        return "+".join(attack.canonical() for attack in self.attacks) or "none"


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
    device: str

    def references(self) -> list[str]:
        """The models that have to be there, the owner first."""
        return list(dict.fromkeys([self.owner, *(each.source for each in self.suspects if each.source != EMBEDDED)]))

    def cells(self) -> list[Cell]:
        """Every cell of the run, in the order in which they are computed."""
        return [self.cell(method, suspect) for method in self.methods for suspect in self.suspects]

    def cell(self, method: Method, suspect: Suspect) -> Cell:
        """The cell of a method and a suspect."""
        return Cell(method.canonical(), suspect.attack, suspect.name, suspect.kind, suspect.sibling, self.seed)

    def tau_of(self, method: Method) -> int:
        """The threshold of a method in this run."""
        return method.default_tau if self.tau is None else self.tau


def make_plan(
    registry: Registry,
    *,
    suite: str,
    methods: Sequence[str],
    attacks: Sequence[str],
    model: str | None = None,
    seed: int = 0,
    tau: int | None = None,
    alpha: float = 0.05,
    device: str = "cpu",
    method_params: Mapping[str, str] | None = None,
) -> Plan:
    """Look everything up. Raises SpecError, UnknownNameError, BadParamsError."""
    _check_numbers(seed, tau, alpha)
    judged_in = registry.suite(suite)
    owner = model or judged_in.owner()
    for ref in (owner, *judged_in.independents()):
        registry.loader(ref)
    negatives = [*_independents(judged_in, owner), *_siblings(registry, judged_in, owner)]
    return Plan(
        suite=judged_in,
        owner=owner,
        methods=tuple(_unique([registry.method(text, method_params) for text in methods])),
        suspects=(*negatives, *_positives(registry, attacks)),
        seed=seed,
        tau=tau,
        alpha=alpha,
        device=device,
    )


def _independents(suite: Suite, owner: str) -> list[Suspect]:
    return [Suspect(ref, ref, (), "negative") for ref in suite.independents() if ref != owner]


def _siblings(registry: Registry, suite: Suite, owner: str) -> list[Suspect]:
    return [
        Suspect(sibling.name, owner, _without_none(registry.attack_chain(sibling.attack)), "negative", sibling=True)
        for sibling in suite.siblings()
    ]


def _positives(registry: Registry, attacks: Sequence[str]) -> list[Suspect]:
    """The unattacked model as the control, then each attack once."""
    chains = {"unattacked": ()} | {
        text: _without_none(registry.attack_chain(text)) for text in attacks if text != "none"
    }
    return [Suspect(name, EMBEDDED, chain, "positive") for name, chain in chains.items()]


def _without_none(chain: tuple[Attack, ...]) -> tuple[Attack, ...]:
    return tuple(attack for attack in chain if attack.name != "none")


def _unique(methods: list[Method]) -> list[Method]:
    return list({method.canonical(): method for method in methods}.values())


def _check_numbers(seed: int, tau: int | None, alpha: float) -> None:
    if seed < 0:
        raise BadParamsError(f"seed must be 0 or more (got {seed}).")
    if tau is not None and tau < 0:
        raise BadParamsError(f"tau must be 0 or more (got {tau}): it counts wrong symbols.")
    if not 0 < alpha < 1:
        raise BadParamsError(f"alpha must lie between 0 and 1 (got {alpha}).")
