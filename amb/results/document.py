"""The document of a run, as `--format json` prints it and docs/schema.md describes it; and the facts it carries."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

from amb.api.digests import digest_of, finite
from amb.results.versions import SCHEMA

if TYPE_CHECKING:
    from amb.api.run import Run

DIGEST: Final = "document_digest"
"""Key of `run.json` beside those of the document."""


def seal(content: Mapping[str, Any]) -> dict[str, Any]:
    """A document with its digest, as it lies in a file."""
    return {**content, DIGEST: digest_of(content)}


def is_sealed(content: Mapping[str, Any]) -> bool:
    """Whether a file's digest is that of its document. Before schema 2 files had none, and what others write may have none."""
    said = content.get(DIGEST)
    return said is None or said == digest_of({key: value for key, value in content.items() if key != DIGEST})


def document(run: Run, *, with_cells: bool = True) -> dict[str, Any]:
    """`{"schema": 2, "run": {...}, "cells": [...]}`; every value is JSON, non-finite numbers are null."""
    plan = run.plan
    facts = {
        "id": run.id,
        "folder": str(run.folder),
        "sweep": run.sweep,
        "suite": plan.suite.canonical(),
        "owner": plan.owner,
        "methods": [method.canonical() for method in plan.methods],
        "n_cells": plan.n_cells,
        "seed": plan.seed,
        "alpha": plan.alpha,
        "device": plan.compute.device,
        "compute": plan.compute.facts(),
        "data": plan.suite.data_facts(),
        **run.facts,
        "profile": run.profile,
        "embeddings": [asdict(each) for each in run.embeddings],
        "links": run.links,
    }
    cells = [result.to_json() for result in run.results] if with_cells else []
    document: dict[str, Any] = finite({"schema": SCHEMA, "run": facts, "cells": cells})
    return document
