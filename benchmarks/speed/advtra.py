"""What searching ADV-TRA's trajectories together saves: seconds per (image, class) beside one at a time as published.

The published schedule has a batch of one, separate forwards for the gradients and for the check, and accepts step
sizes only after 75 of at most 300 iterations. It is timed on a sample of the pairs that the batch found, from all
segments, and scaled by their number. What is in its favour: no pair is hopeless, weights are frozen (the published
code computes their gradients), and no time is counted for failed trajectories or for the last check of every sample.
The seconds of the batch are those of a whole `embed`, all of that included.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

import amb
from amb.plugin.manager import manager
from amb_advtra.method import AdvTra
from amb_advtra.trajectories import move, size_gradient

PAIRS, FORCED = 20, 75


def main() -> None:
    owner = amb.load_model("tiny/owner")
    params = AdvTra()
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        split = manager().registry.suite("tiny").split("trigger")
        embedding = params.embed(owner, amb.Context(("0",), {"trigger": split}, Path(folder)))
    together = time.perf_counter() - started
    samples, labels = (torch.from_numpy(embedding.key.tensors[name]) for name in ("samples", "labels"))
    pairs = len(samples) * (params.n_classes - 1)
    print(
        f"together: {embedding.facts['success_rate']:.0%} of {params.n_trajectories} trajectories in {together:.0f} s; "
        f"{1000 * together / pairs:.0f} ms for each of {pairs} pairs found"
    )

    model = owner.copy().requires_grad_(False).eval()
    started, found = time.perf_counter(), 0
    for row in range(PAIRS):
        first = 2 * params.n_steps * (row % (params.n_classes - 1))
        target = labels[row, first + params.n_steps]
        found += published(model, samples[row, first][None], target[None], params)
    alone = time.perf_counter() - started
    print(f"one at a time: {found} of {PAIRS} pairs found; {1000 * alone / PAIRS:.0f} ms for each pair")
    print(f"ratio: {alone / PAIRS / (together / pairs):.0f} x")


def published(model: amb.VisionModel, start: Tensor, target: Tensor, params: AdvTra) -> bool:
    """Search one pair on the published schedule, and pass through the boundary; whether it was found."""
    sizes = params.first_step - 0.002 * torch.arange(params.n_steps)[None]
    for iteration in range(params.max_iterations):
        path = walk(model, start, sizes, target)
        with torch.no_grad():  # one by one, and the start in place of x_1
            hits = [bool(model.logits(path[place]).argmax(dim=1) == target) for place in (0, *range(2, len(path)))]
        early, reached = any(hits[:-1]), hits[-1]
        if iteration > FORCED and reached and not early:
            walk(model, start, torch.cat([sizes, sizes.flip(1)], dim=1), target)
            return True
        sizes = sizes - params.rate * size_gradient(sizes, params.brake)
        sizes = sizes * (params.control if early else 1.0 if reached else 1 / params.control)
    return False


def walk(model: amb.VisionModel, start: Tensor, sizes: Tensor, target: Tensor) -> list[Tensor]:
    """The samples of a path, from a forward and a backward for each step."""
    path = [start]
    for size in sizes.T:
        image = path[-1].requires_grad_()
        gradient = torch.autograd.grad(F.cross_entropy(model.logits(image), target), image)[0]
        path.append(move(image.detach(), size, gradient.sign()))
    return path


if __name__ == "__main__":
    main()
