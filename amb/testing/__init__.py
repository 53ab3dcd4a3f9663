"""For authors of plugins: contract classes to subclass, and a toy model, data and suite that train in seconds.

Subclass, override the fixture that names your component, and inherit every check:

    class TestMine(MethodContract):
        @pytest.fixture
        def method(self):
            return MyMethod(steps=200)

The other fixtures, such as the toy model that is the owner, may be overridden too.
"""

from __future__ import annotations

from amb.testing.attack import AttackContract
from amb.testing.exact_null import ExactNull
from amb.testing.executor import ExecutorContract
from amb.testing.method import MethodContract
from amb.testing.model_loader import ModelLoaderContract
from amb.testing.reporter import ReporterContract
from amb.testing.suite import SuiteContract
from amb.testing.toy import ToyLoader, ToySplit, ToySuite, toy_context, toy_model

__all__ = [
    "AttackContract",
    "ExactNull",
    "ExecutorContract",
    "MethodContract",
    "ModelLoaderContract",
    "ReporterContract",
    "SuiteContract",
    "ToyLoader",
    "ToySplit",
    "ToySuite",
    "toy_context",
    "toy_model",
]
