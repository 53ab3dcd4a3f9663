"""What protecting and reading cost: each method's extraction beside a bare forward pass of the images that it shows.

A method that reads weights is set beside reading the suspect's file. Times are of the processor, in turn in each round.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

import amb
from amb.plugin.manager import manager

ROUNDS = 5
ROLES: tuple[amb.Role, ...] = ("owner", "trigger")
WITHOUT_ALIGNMENT = "spread-weights:align=False"


def time_embedding(method: amb.Method, owner: amb.VisionModel, folder: Path) -> tuple[amb.Embedding, float]:
    """An embedding and its seconds."""
    splits = {role: amb.get_suite("tiny").split(role) for role in ROLES}
    began = time.process_time()
    embedding = method.embed(owner, amb.Context(("0",), splits, folder, base=lambda: owner))
    return embedding, time.process_time() - began


def measure(method: amb.Method, owner: amb.VisionModel, folder: Path) -> str:
    """One row of the table."""
    embedding, embed_seconds = time_embedding(method, owner, folder)
    ctx = amb.Context(("0",), {}, folder, base=lambda: owner)
    suspect = embedding.model.copy().eval()
    amb.save_checkpoint(suspect, folder / "suspect")
    view = amb.SuspectView(suspect, method.access)
    method.extract(view, embedding.key, ctx)  # once, so that nothing is loaded later; it counts its images
    n_images = view.queries
    images = torch.rand(n_images, 3, 32, 32) if n_images else None

    def read() -> None:
        method.extract(amb.SuspectView(suspect, method.access), embedding.key, ctx)

    def stand_beside() -> None:
        if images is None:
            amb.load_checkpoint(folder / "suspect", "suspect", amb.build_model)
        else:
            with torch.no_grad():
                suspect.features(images)

    reading, beside = time_in_turn([read, stand_beside])
    ratio = statistics.median(a / b for a, b in zip(reading, beside, strict=True))
    what = f"a forward of {n_images:,} images" if n_images else "reading the file"
    seconds = (f"{1000 * statistics.median(each):.0f} ms" for each in (reading, beside))
    return f"| {method} | {embed_seconds:.1f} s | {' | '.join(seconds)} ({what}) | {ratio:.2f} |"


def time_in_turn(works: Sequence[Callable[[], None]]) -> list[list[float]]:
    """Seconds of each, round by round, so that ratios hold on a noisy machine."""
    seconds: list[list[float]] = [[] for _ in works]
    for _ in range(ROUNDS):
        for work, spent in zip(works, seconds, strict=True):
            began = time.process_time()
            work()
            spent.append(time.process_time() - began)
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("methods", nargs="*", help="specs; default: every method as it comes, without presets")
    asked = parser.parse_args().methods or [*sorted(manager().registry.methods.classes), WITHOUT_ALIGNMENT]
    owner = amb.load_model("tiny/owner")
    print(f"{torch.get_num_threads()} thread(s), median of {ROUNDS} rounds")
    print("| method | embed | extract | beside | ratio |\n|---|---|---|---|---|")
    for name in asked:
        with tempfile.TemporaryDirectory() as folder:
            print(measure(amb.get_method(name), owner, Path(folder)), flush=True)


if __name__ == "__main__":
    main()
