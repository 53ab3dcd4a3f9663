"""A model that several steps of a worker need is loaded once, where memory allows."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from amb.models import cache
from amb.models.cache import MODELS_KEPT, ModelCache, ModelHandle
from amb.plugin.registry import Registry
from amb.runtime.batch_size import BatchSizeLimiter
from amb.runtime.compute import Compute
from amb.testing import toy_model


class Shelf:
    """A cache, models to ask it for, and how often each was read."""

    def __init__(self) -> None:
        self.cache = ModelCache(Registry(), Compute("cpu"), BatchSizeLimiter("reading", None, print))
        self.reads: Counter[int] = Counter()

    def load(self, number: int) -> Any:
        def read() -> Any:
            self.reads[number] += 1
            return toy_model(seed=number)

        return self.cache.load(ModelHandle(f"toy/{number}", str(number), read))


def test_a_model_is_read_once() -> None:
    shelf = Shelf()
    models = [shelf.load(number) for number in (0, 1, 0, 1, 0)]
    assert shelf.reads == {0: 1, 1: 1}
    assert models[0] is models[2]


def test_many_small_models_stay() -> None:
    shelf = Shelf()
    for number in [*range(3 * MODELS_KEPT)] * 2:
        shelf.load(number)
    assert set(shelf.reads.values()) == {1}


def test_of_large_models_the_one_used_longest_ago_makes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "SMALL_MIB", 0)
    shelf = Shelf()
    for number in [*range(MODELS_KEPT), 0, MODELS_KEPT, 0, 1]:
        shelf.load(number)
    assert shelf.reads == {0: 1, 1: 2, **dict.fromkeys(range(2, MODELS_KEPT + 1), 1)}
