"""What a run will do, decided and checked before anything is computed or written."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from importlib.util import find_spec
from itertools import count, islice
from typing import Final

from amb.api.interfaces import Attack, Forgery, Method, Suite
from amb.api.plan import EMBEDDED, Plan, Suspect
from amb.api.spec import parse_chain
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
    chains = _collect_chains(registry, attacks)
    _check_chains(chains)
    innocents = [*_list_independents(judged_in, owner), *_list_siblings(registry, judged_in, owner)]
    return Plan(
        suite=judged_in,
        owner=owner,
        methods=tuple(_drop_repeats([registry.method(text, method_params) for text in methods])),
        suspects=(
            *innocents,
            *_make_negatives(registry, judged_in, innocents, negatives),
            *_list_forged(innocents, chains),
            *_list_positives(chains),
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


def n_suspects(registry: Registry, suite: Suite, attacks: Sequence[str], negatives: int = 0) -> int:
    """How many suspects a plan has for each method, counted without making them."""
    distinct = list_distinct(registry, attacks)
    n_forgeries = sum(is_forgery(registry, text) for text in distinct)
    n_innocent = len(suite.independents()) + len(suite.siblings())
    return n_innocent + negatives + n_forgeries * n_claimed(suite) + 1 + len(distinct) - n_forgeries


def list_distinct(registry: Registry, attacks: Sequence[str]) -> list[str]:
    """One spelling of every chain that does something; of more than `MOST_COMPARED` only equal spellings are dropped."""
    texts = list(dict.fromkeys(text for text in attacks if text != "none"))
    return texts if len(texts) > MOST_COMPARED else list(_collect_chains(registry, texts))


def n_claimed(suite: Suite) -> int:
    """On how many innocent models a forged key is read: those that the suite brings as they are."""
    return len(suite.independents()) + sum(each.attack == "none" for each in suite.siblings())


def is_forgery(registry: Registry, text: str) -> bool:
    """Whether a chain attacks the verification rather than the model."""
    links = [link for link in parse_chain(text) if link.name != "none"]
    return bool(links) and issubclass(registry.attacks.find(links[-1].name)[0], Forgery)


def canonical_chain(chain: Sequence[Attack]) -> str:
    """The one spelling of a chain: canonical specs, without links that do nothing; empty where none is left."""
    return "+".join(attack.canonical() for attack in _drop_none(chain))


def _collect_chains(registry: Registry, attacks: Sequence[str | Attack]) -> dict[str, tuple[Attack, ...]]:
    """Every chain once, however often and however it is spelled, under the first name that it was given."""
    named: dict[str, tuple[str, tuple[Attack, ...]]] = {}
    for each in attacks:
        chain = _drop_none(registry.attack_chain(each))
        if chain:
            named.setdefault(canonical_chain(chain), (_name_chain(each), chain))
    return dict(named.values())


def _name_chain(each: str | Attack) -> str:
    """A chain as the user wrote it, less its links that do nothing."""
    if isinstance(each, Attack):
        return str(each)
    return "+".join(str(link) for link in parse_chain(each) if link.name != "none")


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


def _list_forged(innocents: Sequence[Suspect], chains: Mapping[str, tuple[Attack, ...]]) -> list[Suspect]:
    """A forged key is read on every innocent model that the suite brings as it is."""
    return [
        replace(innocent, name=f"{text} on {innocent.name}", attacks=chain, kind="forged")
        for text, chain in chains.items()
        if chain and isinstance(chain[-1], Forgery)
        for innocent in innocents
        if not innocent.attacks
    ]


def _list_positives(chains: Mapping[str, tuple[Attack, ...]]) -> list[Suspect]:
    """The unattacked model as the control, then each attack once."""
    attacks = {text: chain for text, chain in chains.items() if not (chain and isinstance(chain[-1], Forgery))}
    return [
        Suspect(name, EMBEDDED, chain, "positive", group="+".join(attack.name for attack in chain))
        for name, chain in ({"unattacked": ()} | attacks).items()
    ]


def _check_chains(chains: Mapping[str, tuple[Attack, ...]]) -> None:
    """Raises BadParamsError for a forgery that is not the last link, MissingDependencyError for an extra not installed."""
    for text, chain in chains.items():
        if any(isinstance(attack, Forgery) for attack in chain[:-1]):
            raise BadParamsError(f"'{text}': a forgery makes a key, not a model, so it stands at the end of its chain.")
        for attack in chain:
            check_installed(attack)


def check_installed(attack: Attack) -> None:
    """Raises MissingDependencyError where an optional package of an attack is not installed."""
    for module in attack.requires:
        if find_spec(module) is None:
            raise MissingDependencyError(f"attack {attack.name}", "'activemark-bench[attacks]'")


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
