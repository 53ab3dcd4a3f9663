"""What the jobs of a plan take of a machine, by what method and attacks declare and how large the owner is."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

from amb.api.needs import Needs, reckon_needs
from amb.api.plan import Plan
from amb.api.types import ModelFacts, Work
from amb.errors import AmbError
from amb.execution.jobs import Order
from amb.models.references import load_skeleton
from amb.plugin.registry import Registry


class _Size(NamedTuple):
    """How large the owner's network is; suspects count as large as it is."""

    facts: ModelFacts
    weights_mib: float


class NeedsReckoner:
    """Finds the needs of orders; to know its size, each owner's network is built once, untrained."""

    def __init__(self, registry: Registry, *, measure: bool = True) -> None:
        """Without `measure` every order needs a core and no more: where nothing is shared out."""
        self._size_of = cache(lambda ref: _measure_size(ref, registry) if measure else None)

    def __call__(self, order: Order) -> Needs:
        """What an order takes. A job is embedded, or attacked and then read: the larger counts."""
        size = self._size_of(order.plan.owner)
        return (_reckon(order, size) if size else Needs()).on(order.plan.compute.device)

    def usual(self, plan: Plan) -> Needs:
        """What any of a plan's embeddings takes."""
        found = Needs(cpus=0, gpus=0)
        for method in plan.methods:
            found |= self(Order(plan, method))
        return found


def _reckon(order: Order, size: _Size) -> Needs:
    method = order.method
    if method is None:
        return reckon_needs(Work(), size.weights_mib)
    embedding = method.needs(*size)
    if order.suspect is None:
        return embedding
    reading = reckon_needs(method.query_work(), size.weights_mib)
    found = Needs(embedding.cpus, embedding.gpus, reading.memory_mib)
    for attack in order.suspect.attacks:
        found |= attack.needs(method, *size)
    return found


def _measure_size(ref: str, registry: Registry) -> _Size | None:
    """None where the network cannot be built here: then nothing but a core is asked for."""
    try:
        model = load_skeleton(ref, registry)
    except AmbError:
        return None
    n_bytes = sum(weight.numel() * weight.element_size() for weight in model.parameters())
    return _Size(model.facts(), n_bytes / 2**20)
