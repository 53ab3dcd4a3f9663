"""Steps that cost next to nothing, so that what a sweep of them takes is the harness: a plugin for `measure.py` alone."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import amb

N_BITS = 8
DIGESTS = {"owner": "ca84cca872466b8eed9ff2898d216500", "other": "a53c17ebd33d875efb942424ab6419ec"}
"""Of the two models, so that nothing has to be loaded to know them."""


class NoOp(amb.Method):
    """Eight bits that are always read right; nothing is computed."""

    name: ClassVar[str] = "noop"
    access: ClassVar[amb.Access] = "labels"
    n: int = 0
    """A number that makes another method of it."""

    @property
    def default_tau(self) -> int:
        return 0

    def embed(self, owner: amb.VisionModel, ctx: amb.Context) -> amb.Embedding:
        import numpy as np

        bits = np.frombuffer(ctx.draw_bytes("bits", N_BITS), np.uint8) % 2
        return amb.Embedding(owner, amb.Key(self.canonical(), owner.digest(), {"bits": bits.reshape(1, -1)}))

    def extract(self, suspect: amb.SuspectView, key: amb.Key, ctx: amb.Context) -> amb.Evidence:
        return amb.Evidence(key.tensors["bits"], key.tensors["bits"])


class Touch(amb.Attack):
    """Adds a little to one weight: another model for every choice of three numbers."""

    name: ClassVar[str] = "touch"
    a: int = 0
    """Thousands of it."""
    b: int = 0
    """Thousandths."""
    c: int = 0
    """Millionths."""

    def apply(self, model: amb.VisionModel, ctx: amb.Context) -> amb.VisionModel:
        import torch

        touched = model.copy()
        with torch.no_grad():
            weight = next(touched.backbone.parameters()).view(-1)
            weight[0] += self.a + self.b / 1e3
            weight[1] += self.c / 1e3
        return touched


class Burn(Touch):
    """As `touch`, and keeps a core busy for a while."""

    name: ClassVar[str] = "burn"
    seconds: float = 0.5
    """CPU time that it takes."""

    def apply(self, model: amb.VisionModel, ctx: amb.Context) -> amb.VisionModel:
        until = time.process_time() + self.seconds
        while time.process_time() < until:
            pass
        return super().apply(model, ctx)


class Speck(amb.ModelLoader):
    """`speck/owner` and `speck/other`: one linear layer on four patches."""

    name: ClassVar[str] = "speck"

    def names(self) -> Sequence[str]:
        return ["owner", "other"]

    def load(self, rest: str) -> amb.VisionModel:
        from speck import make_speck

        return make_speck(self.names().index(rest))

    def digest(self, rest: str) -> str:
        return DIGESTS[rest]

    def build(self, architecture: Mapping[str, Any]) -> amb.VisionModel:
        from speck import make_speck

        return make_speck(0)


class Scale(amb.Suite):
    """An owner, one innocent model, and a utility that is a constant."""

    name: ClassVar[str] = "scale"

    def owner(self) -> str:
        return "speck/owner"

    def independents(self) -> Sequence[amb.Independent]:
        return [amb.Independent("speck/other", "other-seed")]

    def siblings(self) -> Sequence[amb.Sibling]:
        return []

    def split(self, role: amb.Role) -> amb.Split:
        from amb.testing.toy import ToySplit

        return ToySplit(role)

    def utility(self, model: amb.VisionModel, ctx: amb.Context) -> Mapping[str, float]:
        return {"constant": 1.0}


@amb.hookimpl
def amb_register_methods() -> list[Any]:
    return [NoOp]


@amb.hookimpl
def amb_register_attacks() -> list[Any]:
    return [Touch, Burn]


@amb.hookimpl
def amb_register_suites() -> list[Any]:
    return [Scale]


@amb.hookimpl
def amb_register_models() -> list[Any]:
    return [Speck]
