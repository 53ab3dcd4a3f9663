"""What the batched search of IPGuard saves: its 100 points together beside the same points one at a time."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

import amb
from amb.plugin.manager import manager
from amb_ipguard.fingerprint import draw_starts, passes
from amb_ipguard.method import IPGuard
from amb_ipguard.search import Starts, search

ROUNDS = 3


def by_search(model: amb.VisionModel, starts: Starts, params: IPGuard, batch: int) -> tuple[Tensor, int]:
    """The points and how many steps all took, by the method's own search."""
    found = sorted(search(model.logits, starts, params.k, params.lr, params.max_iterations, batch))
    return torch.stack([each.image for each in found]), sum(each.steps for each in found)


def by_plain_loop(model: amb.VisionModel, starts: Starts, params: IPGuard) -> tuple[Tensor, int]:
    """The same, as one would write it first: a loop over points, torch's Adam, weights that collect gradients too."""
    images, taken = [], 0
    for start, own, target in zip(*starts, strict=True):
        x = start[None].clone().requires_grad_()
        adam = torch.optim.Adam([x], lr=params.lr)
        for step in range(params.max_iterations + 1):
            logits = model.logits(x)[0]
            third = logits[[each for each in range(len(logits)) if each not in (own, target)]].max()
            loss = torch.relu(logits[own] - logits[target] + params.k) + torch.relu(third - logits[own])
            if loss == 0 or step == params.max_iterations:
                break
            adam.zero_grad()
            loss.backward()
            adam.step()
            with torch.no_grad():
                x.clamp_(0, 1)
        images.append(x.detach()[0])
        taken += step
    return torch.stack(images), taken


def main() -> None:
    params = IPGuard()
    owner = amb.load_model("tiny/owner").eval()
    frozen = owner.copy().requires_grad_(False)
    with tempfile.TemporaryDirectory() as folder:
        split = manager().registry.suite("tiny").split("trigger")
        starts = draw_starts(params, frozen, amb.Context(("0",), {"trigger": split}, Path(folder)))
    forms: dict[str, Callable[[], tuple[Tensor, int]]] = {
        f"together, batch={params.batch}": partial(by_search, frozen, starts, params, params.batch),
        "the same search, batch=1": partial(by_search, frozen, starts, params, 1),
        "a plain loop with torch.optim.Adam": partial(by_plain_loop, owner, starts, params),
    }
    seconds: dict[str, list[float]] = {name: [] for name in forms}
    said = {}
    for _ in range(ROUNDS):  # in turn, so that the ratios hold on a noisy machine
        for name, form in forms.items():
            started = time.perf_counter()
            points, steps = form()
            seconds[name].append(time.perf_counter() - started)
            with torch.no_grad():
                right = passes(points, frozen.logits(points), starts, params.k).float().mean()
            said[name] = f"{right:.0%} of {len(points)} points right, {steps / len(points) + 1:.1f} forwards each"
    print(f"{torch.get_num_threads()} thread(s), median of {ROUNDS} rounds, all points in each form")
    first = next(iter(seconds.values()))
    for name, spent in seconds.items():
        ratio = statistics.median(b / a for a, b in zip(first, spent, strict=True))
        print(f"{name}: {statistics.median(spent):.1f} s, {ratio:.1f} x the time; {said[name]}")


if __name__ == "__main__":
    main()
