"""What a plan will cost, as tables and for scripts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from amb.api.types import Fetch, Work
from amb.execution.cost import MeasuredStep, WorkItem, flops_of, seconds_of
from amb.report.tables import Column, Table, TableEntry
from amb.runtime.paths import is_offline, may_download


def fetch_table(fetches: Sequence[Fetch]) -> Table:
    """What has to be here, and what of it is missing."""
    missing = [fetch for fetch in fetches if not fetch.cached]
    rows: list[list[TableEntry]] = [
        [fetch.what, "here" if fetch.cached else "missing", _to_gib(fetch.size), fetch.source] for fetch in fetches
    ]
    known = sum(fetch.size or 0 for fetch in missing)
    notes = [
        f"{len(missing)} of {len(fetches)} missing, {_to_gib(known) or 0:.2f} GiB of known size. {_describe_missing(missing)}"
    ]
    columns = [
        Column("needed", text=True),
        Column("state", text=True),
        Column("GiB", 2),
        Column("from", text=True, priority=2),
    ]
    return Table("Models and data", columns, rows, notes)


def _describe_missing(missing: Sequence[Fetch]) -> str:
    if not missing:
        return "Nothing will be downloaded."
    if is_offline():
        return "Offline: nothing will be downloaded, and the run will stop before it begins."
    data = "data sets only with --download" if not may_download() else "data sets too, as asked"
    return f"A run downloads weights by itself, {data}."


def work_table(items: Sequence[WorkItem], step: MeasuredStep | None) -> Table:
    """What is to be computed."""
    columns = [
        Column("part", text=True),
        Column("times", priority=2),
        Column("images read", 0),
        Column("images trained on", 0),
        *([Column("TFLOP", 1, priority=2), Column("time s", seconds=True)] if step else []),
    ]
    total = sum((item.work for item in items if item.work), Work())
    rows = [_make_row(item.name, item.times, item.work, step) for item in [*items, WorkItem("all of it", 1, total)]]
    return Table("Work", columns, rows, _make_notes(step) if step else [])


def _make_row(name: str, times: int, work: Work | None, step: MeasuredStep | None) -> list[TableEntry]:
    counted: list[TableEntry] = [work.read, work.trained] if work else [None, None]
    if step:
        counted += [flops_of(work, step) / 1e12, seconds_of(work, step)] if work else [None, None]
    return [name, times, *counted]


def _make_notes(step: MeasuredStep) -> list[str]:
    facts = step.facts
    sizes = f"{facts.n_blocks} blocks, {facts.n_tokens} tokens of {facts.dim}"
    pace = f"{step.read_seconds * 1e3:.1f} ms an image to read, {step.trained_seconds * 1e3:.1f} ms to train on"
    memory = f"{step.fixed_mib:,.0f} MiB for weights, gradients and AdamW, and {step.image_mib:,.0f} MiB"
    stored = 4 * step.n_parameters / 2**20
    return [
        f"{facts.ref}: {step.n_parameters / 1e6:.1f} M parameters, {sizes}; {step.flops / 1e9:.2f} GFLOP an image forward.",
        f"Measured on this device, {step.batch} images a step: {pace}.",
        f"Training needs {memory} for each image of a batch; where that is not there, smaller batches are taken.",
        f"The store keeps a model of {stored:,.0f} MiB for each embedding and each attacked model.",
        "Every suspect is reckoned as large as the owner; attacks count for what they declare.",
    ]


def cost_to_json(fetches: Sequence[Fetch], items: Sequence[WorkItem], step: MeasuredStep | None) -> dict[str, Any]:
    """The same for scripts."""
    total = sum((item.work for item in items if item.work), Work())
    return {
        "fetches": [fetch._asdict() for fetch in fetches],
        "work": [
            {
                "part": item.name,
                "times": item.times,
                **(_cost_to_json(item.work, step) if item.work else {"read": None}),
            }
            for item in items
        ],
        "total": _cost_to_json(total, step),
        "step": None if step is None else {**step.__dict__, "facts": step.facts._asdict()},
    }


def _cost_to_json(work: Work, step: MeasuredStep | None) -> dict[str, float]:
    counted = {"read": work.read, "trained": work.trained}
    return counted | ({"flops": flops_of(work, step), "seconds": seconds_of(work, step)} if step else {})


def _to_gib(size: int | None) -> float | None:
    return None if size is None else size / 2**30
