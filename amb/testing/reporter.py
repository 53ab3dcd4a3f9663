"""The contract of reporters, and the document that it gives them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from amb.api.interfaces import Reporter
from amb.results.versions import SCHEMA


class ReporterContract:
    """What every reporter promises."""

    @pytest.fixture
    def reporter(self) -> Reporter:
        """The reporter under test."""
        raise NotImplementedError("override the fixture `reporter`")

    @pytest.fixture
    def document(self) -> Mapping[str, Any]:
        """The document of a run; by default one with an ok, a skipped and a failed cell."""
        return example_document()

    def test_renders_every_suspect(self, reporter: Reporter, document: Mapping[str, Any]) -> None:
        text = reporter.render(document)
        for cell in document["cells"]:
            assert cell["suspect"] in text


def example_document() -> dict[str, Any]:
    """A small document in the documented schema."""
    common = {"method": "m", "attack": "none", "seed": 0, "sibling": False, "cached": False, "digests": {}}
    judged = {
        "claim": True, "p_value": 0.1, "basis": "calibrated", "level": 0.1, "n_sources": 9, "alphabet": 2, "paper_rule": True, "bound": 0.1, "trial_fpr": 0.004, "detection_rate": 1.0, "interval": [0.9, 1.0], "curve": [1.0, 1.0],
        "bit_error_rate": 0.0, "tau": 0, "alpha": 0.05, "margin": 0.5, "n_trials": 8, "n_negatives": 1,
        "fpr_supported": 0.5, "p_values": {"binomial": 1e-9, "permutation": 1e-4, "calibrated": 0.5},
    }  # fmt: skip
    unjudged = dict.fromkeys(judged)
    measured = {
        "seconds": {"embed": 1.0, "attack": 0.0, "extract": 0.1},
        "utility": {"knn": 0.9},
        "peak_memory_mib": 1.0,
    }
    nothing: dict[str, Any] = {"seconds": {}, "utility": {}, "peak_memory_mib": None}
    suspects = [["good", 1.0], ["gone", None], ["bad", None]]
    columns = [{"name": "suspect", "digits": 3, "text": True}, {"name": "R(τ)", "digits": 3, "text": False}]
    table = {"title": "m · toy/owner", "columns": columns, "rows": suspects, "notes": ["gone: skipped: no"]}
    return {
        "schema": SCHEMA,
        "tables": [table],
        "run": {
            "id": "r", "folder": "f", "suite": "toy", "owner": "toy/owner", "methods": ["m"], "seed": 0, "embeddings": [],
        },
        "cells": [
            {**common, **judged, **measured, "suspect": "good", "kind": "positive", "status": "ok", "reason": ""},
            {**common, **unjudged, **nothing, "suspect": "gone", "kind": "negative", "status": "skipped", "reason": "no"},
            {**common, **unjudged, **nothing, "suspect": "bad", "kind": "positive", "status": "failed", "reason": "oh"},
        ],
    }  # fmt: skip
