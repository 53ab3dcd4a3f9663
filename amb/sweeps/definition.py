"""A sweep: methods x attacks x suites x seeds, as one value that becomes plans."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Final, TypeVar

from amb.api.plan import Plan
from amb.errors import BadParamsError
from amb.execution.planning import make_plan, n_suspects, with_seed
from amb.plugin.registry import Registry

T = TypeVar("T", str, int)
FILTERS: Final = ("suite", "method", "attack", "seed")


@dataclass(frozen=True)
class Sweep:
    """What a sweep file asks for; every name and value in it exists."""

    name: str
    suites: tuple[str, ...]
    methods: tuple[str, ...]
    """Specs, parameter axes spelled out."""
    attacks: tuple[str, ...]
    seeds: tuple[int, ...]
    model: str | None = None
    """Reference of a model to protect instead of the suite's owner."""
    tau: int | None = None
    alpha: float = 0.05
    negatives: int = 0
    """Further negatives, made of the suite's innocent models."""

    def n_cells(self, registry: Registry) -> int:
        """How many cells it has, counted without making them."""
        made = [registry.suite(suite) for suite in self.suites]
        suspects = sum(n_suspects(registry, suite, self.attacks, self.negatives) for suite in made)
        return suspects * len(self.methods) * len(self.seeds)

    def limited(self, n: int) -> Sweep:
        """The first n suites, methods and seeds, with every attack: a quick look."""
        return replace(self, suites=self.suites[:n], methods=self.methods[:n], seeds=self.seeds[:n])

    def only(self, filters: Sequence[str]) -> Sweep:
        """What matches the `key=pattern` filters; those of one key add up. Raises BadParamsError."""
        wanted = _parse_filters(filters)
        kept = replace(
            self,
            suites=_keep_matching(self.suites, wanted.get("suite")),
            methods=_keep_matching(self.methods, wanted.get("method")),
            attacks=_keep_matching(self.attacks, wanted.get("attack")),
            seeds=_keep_matching(self.seeds, wanted.get("seed")),
        )
        for key, patterns in wanted.items():
            if not getattr(kept, f"{key}s"):
                has = ", ".join(str(each) for each in getattr(self, f"{key}s"))
                asked = " or ".join(patterns)
                raise BadParamsError(f"--only {key}={asked} matches nothing in sweep {self.name}. It has: {has}.")
        return kept

    def plans(self, registry: Registry) -> list[Plan]:
        """One plan for each suite and seed."""
        made = [
            make_plan(
                registry,
                suite=suite,
                methods=self.methods,
                attacks=self.attacks,
                model=self.model,
                tau=self.tau,
                alpha=self.alpha,
                negatives=self.negatives,
            )
            for suite in self.suites
        ]
        return [with_seed(plan, seed) for plan in made for seed in self.seeds]


def _parse_filters(filters: Iterable[str]) -> dict[str, list[str]]:
    wanted: dict[str, list[str]] = {}
    for text in filters:
        key, equals, pattern = text.partition("=")
        if key not in FILTERS or not equals or not pattern:
            known = ", ".join(FILTERS)
            raise BadParamsError(f"--only {text} is not KEY=PATTERN. Keys: {known}; patterns may hold * and ?.")
        wanted.setdefault(key, []).append(pattern)
    return wanted


def _keep_matching(items: tuple[T, ...], patterns: list[str] | None) -> tuple[T, ...]:
    if patterns is None:
        return items
    return tuple(item for item in items if any(fnmatchcase(str(item), pattern) for pattern in patterns))
