"""What a plan will cost on this device, reckoned from what its parts declare and from one measured step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from amb.api.types import Fetch, Work
from amb.runtime.timing import measure

if TYPE_CHECKING:
    from amb.api.interfaces import Method
    from amb.api.plan import Plan, Suspect
    from amb.api.types import ModelFacts
    from amb.api.vision import VisionModel
    from amb.plugin.registry import Registry

_STEP_FLOPS = 2e11
"""Of a measured step, forward: enough images that a small network is not timed by its overhead."""
_BATCHES = range(4, 65)


@dataclass(frozen=True)
class MeasuredStep:
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
class WorkItem:
    """A part of the work, in the words of the table."""

    name: str
    times: int
    work: Work | None
    """Of all times together; None where it is not known beforehand."""


def list_fetches(plan: Plan, registry: Registry) -> list[Fetch]:
    """Everything that has to be here: data first, then the models in the plan's order."""
    loaders = [registry.loader(ref) for ref in plan.references()]
    return [*plan.suite.fetches(), *(fetch for loader, rest in loaders for fetch in loader.fetches(rest))]


def list_work(plan: Plan, facts: ModelFacts) -> list[WorkItem]:
    """Embedding, attacks, reading and utility of every method; every suspect counts as large as the owner."""
    items = []
    for method in plan.methods:
        made = [_attack_work(each, method, facts) for each in plan.suspects]
        known = [work for work in made if work is not None]
        items += [
            WorkItem(f"embed {method.name}", 1, method.work(facts)),
            WorkItem(f"attacks on {method.name}", len(known), sum(known, Work())),
            WorkItem(f"extract {method.name}", len(plan.suspects), method.query_work().times(len(plan.suspects))),
        ]
        if len(known) < len(made):
            items.append(WorkItem(f"attacks on {method.name}, not known beforehand", len(made) - len(known), None))
    models = 1 + len(plan.methods) * len(plan.suspects)
    return [*items, WorkItem("utility", models, plan.suite.utility_work().times(models))]


def _attack_work(suspect: Suspect, method: Method, facts: ModelFacts) -> Work | None:
    works = [attack.work(method, facts) for attack in suspect.attacks]
    known = [work for work in works if work is not None]
    return sum(known, Work()) if len(known) == len(works) else None


def measure_step(model: VisionModel, device: str) -> MeasuredStep:
    """Pass a few blank images forward and backward; the weights need not be the trained ones."""
    flops = _count_flops(model)
    n = min(max(int(_STEP_FLOPS / max(flops, 1)), _BATCHES[0]), _BATCHES[-1])
    _measure_pass(model, 1, device)  # warms up
    (_, _, small), (read, trained, large) = (_measure_pass(model, size, device) for size in (1, n))
    n_parameters = sum(weight.numel() for weight in model.parameters())
    return MeasuredStep(
        facts=model.facts(),
        n_parameters=n_parameters,
        flops=flops,
        read_seconds=read / n,
        trained_seconds=trained / n,
        fixed_mib=4 * 4 * n_parameters / 2**20,
        image_mib=max(0.0, (large - small) / (n - 1)),
        batch=n,
    )


def _measure_pass(model: VisionModel, n: int, device: str) -> tuple[float, float, float]:
    """Seconds to read and to train on n images, and the peak of memory in MiB."""
    import torch

    images = torch.rand(n, 3, model.backbone.image_size, model.backbone.image_size)
    with torch.no_grad(), measure(device) as reading:
        model.tokens(images)
    with measure(device) as training:
        model.tokens(images).square().mean().backward()  # type: ignore[no-untyped-call]
    model.zero_grad()
    return reading.seconds, training.seconds, training.peak_memory_mib


def _count_flops(model: VisionModel) -> float:
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    size = model.backbone.image_size
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model.tokens(torch.zeros(1, 3, size, size))
    return float(counter.get_total_flops())


def seconds_of(work: Work, step: MeasuredStep) -> float:
    """How long a work takes at the measured pace."""
    return work.read * step.read_seconds + work.trained * step.trained_seconds


def flops_of(work: Work, step: MeasuredStep) -> float:
    """Its products and sums: backward counts as twice forward (Kaplan et al. 2020, section 2.1)."""
    return (work.read + 3 * work.trained) * step.flops
