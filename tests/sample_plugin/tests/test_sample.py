"""The sample plugin under the shipped contracts: all that its author has to write."""

from __future__ import annotations

import pytest
from amb_sample import Jitter, Nearest

from amb.testing import AttackContract, MethodContract


class TestNearest(MethodContract):
    @pytest.fixture
    def method(self) -> Nearest:
        return Nearest()


class TestJitter(AttackContract):
    @pytest.fixture
    def attack(self) -> Jitter:
        return Jitter()
