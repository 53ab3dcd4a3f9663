"""What the cached p(x) and q(x) of ActiveMark save: a training step with them beside one that computes them again."""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path

import torch

import amb
from amb.plugin.manager import manager
from amb_activemark.networks import Carrier, LaterBlocks, tap
from amb_activemark.training import _choose_trained, _fill_cache

STEPS, BATCH, BLOCK = 20, 32, 2


def main() -> None:
    registry = manager().registry
    suite, params = registry.suite("tiny"), registry.method("activemark")
    owner = amb.load_model("tiny/owner")
    split = suite.split("owner")
    carrier = Carrier("channel", 0, owner.backbone.n_prefix)
    original = LaterBlocks(owner, BLOCK, carrier, "embedding")
    later = LaterBlocks(owner.copy(), BLOCK, carrier, "embedding")
    _choose_trained(params, later)
    with tempfile.TemporaryDirectory() as folder:
        ctx = amb.Context(("0",), {"owner": split}, Path(folder))
        cache = _fill_cache(original, split, list(range(STEPS * BATCH)), params, ctx)

    def cached(step: int) -> tuple[torch.Tensor, torch.Tensor]:
        rows = cache.fetch(torch.arange(step * BATCH, (step + 1) * BATCH), "cpu")
        return rows.tokens, rows.output

    def computed(step: int) -> tuple[torch.Tensor, torch.Tensor]:
        with torch.no_grad():
            tokens = tap(owner, split.batch(range(step * BATCH, (step + 1) * BATCH)).images, BLOCK, carrier).tokens
            return tokens, original(tokens).tokens

    times: dict[str, list[float]] = {"cached": [], "computed": []}
    for step in range(STEPS):
        for name, fetch in (("cached", cached), ("computed", computed)):
            started = time.perf_counter()
            tokens, output = fetch(step)
            (later(tokens).tokens - output).norm(dim=2).mean().backward()
            times[name].append(time.perf_counter() - started)
    ratio = statistics.median(b / a for a, b in zip(times["cached"], times["computed"], strict=True))
    print(f"a step with the cache: {1000 * statistics.median(times['cached']):.0f} ms; without: {ratio:.2f} x that")


if __name__ == "__main__":
    main()
