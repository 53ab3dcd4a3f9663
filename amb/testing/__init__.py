"""For authors of plugins: contract classes to subclass, and a toy model, data and suite that train in seconds."""

from __future__ import annotations

from amb.testing.contracts import (
    AttackContract,
    ExactNull,
    MethodContract,
    ModelLoaderContract,
    ReporterContract,
    SuiteContract,
)
from amb.testing.executors import ExecutorContract
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
