"""What a plan will cost on this device, reckoned from what its parts declare and from one measured step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from amb.api.interfaces import Fetch, Work
from amb.report.tables import Column, Entry, Table
from amb.runtime.paths import is_offline, may_download
from amb.runtime.timing import measure

if TYPE_CHECKING:
    from amb.api.interfaces import Method
    from amb.api.records import ModelFacts
    from amb.api.vision import VisionModel
    from amb.execution.planning import Plan, Suspect

_STEP_FLOPS = 2e11
"""Of a measured step, forward: enough images that a small network is not timed by its overhead."""
_BATCHES = range(4, 65)


@dataclass(frozen=True)
class Step:
    """What the owner's network takes on this device."""

    facts: ModelFacts
    n_parameters: int
    flops: float
    """Of one image forward, counted by torch; a product and a sum are two."""
    read_seconds: float
    """One image forward."""
    trained_seconds: float
    """One image forward and backward."""
    fixed_mib: float
    """Weights, gradients and AdamW's two moments, all fp32."""
    image_mib: float
    """What training keeps of one more image."""
    batch: int
    """Images per measured step."""


@dataclass(frozen=True)
class Share:
    """A part of the work, in the words of the table."""

    name: str
    times: int
    work: Work | None
    """Of all times together; None where it is not known beforehand."""


def fetches_of(plan: Plan) -> list[Fetch]:
    """Everything that has to be here: data first, then the models in the plan's order."""
    from amb.plugin.manager import manager

    loaders = [manager().registry.loader(ref) for ref in plan.references()]
    return [*plan.suite.fetches(), *(fetch for loader, rest in loaders for fetch in loader.fetches(rest))]


def shares_of(plan: Plan, facts: ModelFacts) -> list[Share]:
    """Embedding, attacks, reading and utility of every method; every suspect counts as large as the owner."""
    shares = []
    for method in plan.methods:
        made = [_attacks(each, method, facts) for each in plan.suspects]
        known = [work for work in made if work is not None]
        shares += [
            Share(f"embed {method.name}", 1, method.work(facts)),
            Share(f"attacks on {method.name}", len(known), sum(known, Work())),
            Share(f"extract {method.name}", len(plan.suspects), method.query_work().times(len(plan.suspects))),
        ]
        if len(known) < len(made):
            shares.append(Share(f"attacks on {method.name}, not known beforehand", len(made) - len(known), None))
    models = 1 + len(plan.methods) * len(plan.suspects)
    return [*shares, Share("utility", models, plan.suite.utility_work().times(models))]


def _attacks(suspect: Suspect, method: Method, facts: ModelFacts) -> Work | None:
    works = [attack.work(method, facts) for attack in suspect.attacks]
    known = [work for work in works if work is not None]
    return sum(known, Work()) if len(known) == len(works) else None


def measure_step(model: VisionModel, device: str) -> Step:
    """Pass a few blank images forward and backward; the weights need not be the trained ones."""
    flops = _flops(model)
    n = min(max(int(_STEP_FLOPS / max(flops, 1)), _BATCHES[0]), _BATCHES[-1])
    _measured(model, 1, device)  # warms up
    (_, _, small), (read, trained, large) = (_measured(model, size, device) for size in (1, n))
    n_parameters = sum(weight.numel() for weight in model.parameters())
    return Step(
        facts=model.facts(),
        n_parameters=n_parameters,
        flops=flops,
        read_seconds=read / n,
        trained_seconds=trained / n,
        fixed_mib=4 * 4 * n_parameters / 2**20,
        image_mib=max(0.0, (large - small) / (n - 1)),
        batch=n,
    )


def _measured(model: VisionModel, n: int, device: str) -> tuple[float, float, float]:
    """Seconds to read and to train on n images, and the peak of memory in MiB."""
    import torch

    images = torch.rand(n, 3, model.backbone.image_size, model.backbone.image_size)
    with torch.no_grad(), measure(device) as reading:
        model.tokens(images)
    with measure(device) as training:
        model.tokens(images).square().mean().backward()  # type: ignore[no-untyped-call]
    model.zero_grad()
    return reading.seconds, training.seconds, training.peak_memory_mib


def _flops(model: VisionModel) -> float:
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    size = model.backbone.image_size
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model.tokens(torch.zeros(1, 3, size, size))
    return float(counter.get_total_flops())


def seconds_of(work: Work, step: Step) -> float:
    """How long a work takes at the measured pace."""
    return work.read * step.read_seconds + work.trained * step.trained_seconds


def flops_of(work: Work, step: Step) -> float:
    """Its products and sums: backward counts as twice forward (Kaplan et al. 2020, section 2.1)."""
    return (work.read + 3 * work.trained) * step.flops


def fetch_table(fetches: Sequence[Fetch]) -> Table:
    """What has to be here, and what of it is missing."""
    missing = [fetch for fetch in fetches if not fetch.cached]
    rows: list[list[Entry]] = [
        [fetch.what, "here" if fetch.cached else "missing", _gib(fetch.size), fetch.source] for fetch in fetches
    ]
    known = sum(fetch.size or 0 for fetch in missing)
    notes = [f"{len(missing)} of {len(fetches)} missing, {_gib(known) or 0:.2f} GiB of known size. {_how(missing)}"]
    columns = [Column("needed", text=True), Column("state", text=True), Column("GiB", 2), Column("from", text=True)]
    return Table("Models and data", columns, rows, notes)


def _how(missing: Sequence[Fetch]) -> str:
    if not missing:
        return "Nothing will be downloaded."
    if is_offline():
        return "Offline: nothing will be downloaded, and the run will stop before it begins."
    data = "data sets only with --download" if not may_download() else "data sets too, as asked"
    return f"A run downloads weights by itself, {data}."


def work_table(shares: Sequence[Share], step: Step | None) -> Table:
    """What is to be computed."""
    columns = [
        Column("part", text=True),
        Column("times"),
        Column("images read", 0),
        Column("images trained on", 0),
        *([Column("TFLOP", 1), Column("minutes", 1)] if step else []),
    ]
    total = sum((share.work for share in shares if share.work), Work())
    rows = [_row(share.name, share.times, share.work, step) for share in [*shares, Share("all of it", 1, total)]]
    return Table("Work", columns, rows, _notes(step) if step else [])


def _row(name: str, times: int, work: Work | None, step: Step | None) -> list[Entry]:
    counted: list[Entry] = [work.read, work.trained] if work else [None, None]
    if step:
        counted += [flops_of(work, step) / 1e12, seconds_of(work, step) / 60] if work else [None, None]
    return [name, times, *counted]


def _notes(step: Step) -> list[str]:
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


def to_json(fetches: Sequence[Fetch], shares: Sequence[Share], step: Step | None) -> dict[str, Any]:
    """The same for scripts."""
    total = sum((share.work for share in shares if share.work), Work())
    return {
        "fetches": [fetch._asdict() for fetch in fetches],
        "work": [
            {"part": share.name, "times": share.times, **(_cost(share.work, step) if share.work else {"read": None})}
            for share in shares
        ],
        "total": _cost(total, step),
        "step": None if step is None else {**step.__dict__, "facts": step.facts._asdict()},
    }


def _cost(work: Work, step: Step | None) -> dict[str, float]:
    counted = {"read": work.read, "trained": work.trained}
    return counted | ({"flops": flops_of(work, step), "seconds": seconds_of(work, step)} if step else {})


def _gib(size: int | None) -> float | None:
    return None if size is None else size / 2**30
