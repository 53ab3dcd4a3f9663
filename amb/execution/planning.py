"""What a run will do, decided and checked before anything is computed or written."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache, partial
from importlib.util import find_spec
from itertools import count, islice
from typing import Final

from amb.api.interfaces import Attack, Forgery, Method, Suite
from amb.api.plan import Plan, Suspect, Suspects, name_chain
from amb.errors import BadParamsError, MissingDependencyError
from amb.plugin.registry import Registry

MOST_NEGATIVES: Final = 100_000
MOST_COMPARED: Final = 20_000
"""Chains up to which two spellings of one are looked for before a plan is made."""


def make_plan(
    registry: Registry,
    *,
    suite: str | Suite,
    methods: Sequence[str | Method],
    attacks: Sequence[str | Attack],
    model: str | None = None,
    seed: int = 0,
    tau: int | None = None,
    alpha: float = 0.05,
    level: float = 1e-6,
    negatives: int = 0,
    method_params: Mapping[str, str] | None = None,
) -> Plan:
    """Look everything up. Raises SpecError, UnknownNameError, BadParamsError."""
    _check_numbers(seed, tau, alpha, level, negatives)
    judged_in = registry.suite(suite)
    owner = model or judged_in.owner()
    for ref in (owner, *(each.ref for each in judged_in.independents())):
        registry.loader(ref)
    forgeries, chains = _list_chains(registry, attacks)
    innocents = [*_list_independents(judged_in, owner), *_list_siblings(registry, judged_in, owner)]
    return Plan(
        suite=judged_in,
        owner=owner,
        methods=tuple(_drop_repeats([registry.method(text, method_params) for text in methods])),
        suspects=Suspects(
            (*innocents, *_make_negatives(registry, judged_in, innocents, negatives)),
            forgeries,
            chains,
            partial(_make_chain, registry),
        ),
        seed=seed,
        tau=tau,
        alpha=alpha,
        level=level,
    )


def with_seed(plan: Plan, seed: int) -> Plan:
    """The same plan at another seed; its components are shared. Raises BadParamsError."""
    _check_seed(seed)
    return replace(plan, seed=seed)


def n_suspects(registry: Registry, suite: Suite, attacks: Sequence[str | Attack], negatives: int = 0) -> int:
    """How many suspects a plan has for each method, counted without making them."""
    distinct = list_distinct(registry, attacks)
    n_forgeries = sum(is_forgery(registry, chain) for chain in distinct)
    n_innocent = len(suite.independents()) + len(suite.siblings())
    return n_innocent + negatives + n_forgeries * n_claimed(suite) + 1 + len(distinct) - n_forgeries


def list_distinct(registry: Registry, attacks: Sequence[str | Attack]) -> list[str | Attack]:
    """One spelling of every chain that does something; of more than `MOST_COMPARED` only equal spellings are dropped."""
    distinct = list({each if isinstance(each, str) else id(each): each for each in attacks}.values())
    if len(distinct) > MOST_COMPARED:
        return [each for each in distinct if name_chain(each) not in ("", "none")]
    named: dict[str, str | Attack] = {}
    for each in distinct:
        named.setdefault(canonical_chain(registry.attack_chain(each)), each)
    return [each for name, each in named.items() if name]


def n_claimed(suite: Suite) -> int:
    """On how many innocent models a forged key is read: those that the suite brings as they are."""
    return len(suite.independents()) + sum(each.attack == "none" for each in suite.siblings())


def is_forgery(registry: Registry, chain: str | Attack) -> bool:
    """Whether a chain attacks the verification rather than the model."""
    if isinstance(chain, Attack):
        return isinstance(chain, Forgery)
    name = name_chain(chain).rpartition("+")[2].partition(":")[0]
    return bool(name) and issubclass(registry.attacks.find(name)[0], Forgery)


def canonical_chain(chain: Sequence[Attack]) -> str:
    """The one spelling of a chain: canonical specs, without links that do nothing; empty where none is left."""
    return "+".join(attack.canonical() for attack in _drop_none(chain))


def _list_chains(
    registry: Registry, attacks: Sequence[str | Attack]
) -> tuple[tuple[str | Attack, ...], tuple[str | Attack, ...]]:
    """The forgeries and the other chains, each once, in the order given. Every chain is made to see that it can be."""
    found: dict[bool, list[str | Attack]] = {True: [], False: []}
    for each in list_distinct(registry, attacks):
        chain = _make_chain(registry, each)
        _check_chain(each, chain)
        found[isinstance(chain[-1], Forgery)].append(each)
    return tuple(found[True]), tuple(found[False])


def _make_chain(registry: Registry, each: str | Attack) -> tuple[Attack, ...]:
    return _drop_none(registry.attack_chain(each))


def _list_independents(suite: Suite, owner: str) -> list[Suspect]:
    return [
        Suspect(each.ref, each.ref, (), "negative", group=each.group)
        for each in suite.independents()
        if each.ref != owner
    ]


def _list_siblings(registry: Registry, suite: Suite, owner: str) -> list[Suspect]:
    return [
        Suspect(
            each.name,
            each.ref or owner,
            _drop_none(registry.attack_chain(each.attack)),
            "negative",
            True,
            each.group,
        )
        for each in suite.siblings()
    ]


def _make_negatives(registry: Registry, suite: Suite, innocents: Sequence[Suspect], n: int) -> list[Suspect]:
    """Further negatives, as many as asked: each innocent model under each of the suite's perturbations in turn."""
    if n and not any("{}" in recipe for recipe in suite.perturbations()):
        raise BadParamsError(f"The suite {suite.name} has no recipe for further negatives; ask for none.")
    pairs = ((recipe, innocent) for recipe in _repeat_recipes(suite) for innocent in innocents)
    return [_perturb_suspect(registry, innocent, recipe) for recipe, innocent in islice(pairs, n)]


def _repeat_recipes(suite: Suite) -> Iterator[str]:
    """Every recipe once, then those with a number in them again and again, each time with the next number."""
    recipes = suite.perturbations()
    for draw in count(1):
        yield from (each.replace("{}", str(draw)) for each in recipes if draw == 1 or "{}" in each)


def _perturb_suspect(registry: Registry, innocent: Suspect, text: str) -> Suspect:
    chain = (*innocent.attacks, *_drop_none(registry.attack_chain(text)))
    return replace(innocent, name=f"{innocent.name}, {text}", attacks=chain)


def _check_chain(text: str | Attack, chain: Sequence[Attack]) -> None:
    """Raises BadParamsError for a forgery that is not the last link, MissingDependencyError for an extra not installed."""
    if any(isinstance(attack, Forgery) for attack in chain[:-1]):
        raise BadParamsError(f"'{text}': a forgery makes a key, not a model, so it stands at the end of its chain.")
    for attack in chain:
        check_installed(attack)


def check_installed(attack: Attack) -> None:
    """Raises MissingDependencyError where an optional package of an attack is not installed."""
    for module in attack.requires:
        if not _is_installed(module):
            raise MissingDependencyError(f"attack {attack.name}", "'activemark-bench[attacks]'")


@cache
def _is_installed(module: str) -> bool:
    return find_spec(module) is not None


def _drop_none(chain: Sequence[Attack]) -> tuple[Attack, ...]:
    return tuple(attack for attack in chain if attack.name != "none")


def _drop_repeats(methods: list[Method]) -> list[Method]:
    return list({method.canonical(): method for method in methods}.values())


def _check_numbers(seed: int, tau: int | None, alpha: float, level: float, negatives: int) -> None:
    if not 0 <= negatives <= MOST_NEGATIVES:
        raise BadParamsError(f"negatives must be 0 to {MOST_NEGATIVES:,} (got {negatives}).")
    _check_seed(seed)
    if tau is not None and tau < 0:
        raise BadParamsError(f"tau must be 0 or more (got {tau}): it counts wrong symbols.")
    if not 0 < level < 1:
        raise BadParamsError(f"level must lie between 0 and 1 (got {level}): it is a false positive rate.")
    if not 0 < alpha < 1:
        raise BadParamsError(f"alpha must lie between 0 and 1 (got {alpha}).")


def _check_seed(seed: int) -> None:
    if seed < 0:
        raise BadParamsError(f"seed must be 0 or more (got {seed}).")
