"""Components that do next to nothing, so that a sweep of thousands of real cells takes a minute: method and attack `no-op`."""

from __future__ import annotations

from typing import Any, ClassVar

import torch

import amb
from amb.testing.toy import ToySuite

SUSPECTS_BESIDE_ATTACKS = 3
"""Of the suite: an innocent model, the unmarked owner, the marked one."""


class NoOpMethod(amb.Method):
    """A fingerprint of random bits that reads them on every suspect; which are wrong follows from the suspect's features."""

    name: ClassVar[str] = "no-op"
    access: ClassVar[amb.Access] = "features"
    n: int = 0
    """Which of many."""

    @property
    def default_tau(self) -> int:
        return 1

    def embed(self, owner: amb.VisionModel, ctx: amb.Context) -> amb.Embedding:
        bits = torch.randint(2, (8, 8), generator=ctx.generator("bits"))
        return amb.Embedding(owner, amb.Key(self.canonical(), owner.digest(), {"bits": bits.numpy()}))

    def extract(self, suspect: amb.SuspectView, key: amb.Key, ctx: amb.Context) -> amb.Evidence:
        features = suspect.features(torch.full((1, 3, 16, 16), (self.n + 1) / 1000))
        drawn = torch.Generator().manual_seed(int(features.abs().sum() * 1e6))
        wrong = torch.rand((8, 8), generator=drawn).numpy() < 0.2
        return amb.Evidence(key.tensors["bits"], key.tensors["bits"] ^ wrong)


class NoOpAttack(amb.Attack):
    """Moves one weight, so that no two suspects are the same."""

    name: ClassVar[str] = "no-op"
    n: int = 0
    """Which of many."""

    def apply(self, model: amb.VisionModel, ctx: amb.Context) -> amb.VisionModel:
        moved = model.copy()
        with torch.no_grad():
            moved.backbone.get_parameter("norm.bias")[0] += self.n / 1000
        return moved


class NoOpSuite(ToySuite):
    """The toy suite, on which a model is worth something without being measured."""

    name: ClassVar[str] = "no-op"

    def utility(self, model: amb.VisionModel, ctx: amb.Context) -> dict[str, float]:
        return {"knn": 0.5}


class NoOpPlugin:
    """They, as a plugin beside the toy one, whose models they are about."""

    @amb.hookimpl
    def amb_register_methods(self) -> list[Any]:
        return [NoOpMethod]

    @amb.hookimpl
    def amb_register_attacks(self) -> list[Any]:
        return [NoOpAttack]

    @amb.hookimpl
    def amb_register_suites(self) -> list[Any]:
        return [NoOpSuite]


def make_sweep(n_cells: int, n_methods: int) -> str:
    """The text of a sweep file of so many cells, counting those that the suite brings."""
    n_attacks, rest = divmod(n_cells, n_methods)
    if rest or n_attacks <= SUSPECTS_BESIDE_ATTACKS:
        raise ValueError(f"{n_cells} cells cannot be split among {n_methods} methods")
    methods, attacks = list(range(n_methods)), list(range(1, n_attacks - SUSPECTS_BESIDE_ATTACKS + 1))
    return f"suites: no-op\nmethods: {{no-op: {{n: {methods}}}}}\nattacks: {{no-op: {{n: {attacks}}}}}\n"
