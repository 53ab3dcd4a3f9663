"""ActiveMark on full-size foundation models with random weights: seconds a step, seconds an image, memory, the profile.

Nothing is fetched. Massive activations are planted by a bias in one block, so the profile has something to find; what is
measured is cost, not detection.

    python benchmarks/speed/foundation.py
    python benchmarks/speed/foundation.py --device cuda --precision bf16 --triggers 1000 --images 1000 --steps 100 --batch 16
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import click
import torch

import amb
from amb.api.data import Batch
from amb.evaluation.activations import activation_profile
from amb.models.references import load_skeleton
from amb.plugin.manager import manager
from amb.runtime.compute import Compute, pick_device
from amb.runtime.progress import make_progress
from amb.runtime.timing import measure
from amb_activemark.method import ActiveMark

PLANTED: Final = {"open_clip/ViT-L-14/openai": 12, "hf/facebook/dinov2-large": 18}
"""The models of the paper, and the blocks where it finds their massive activations."""


@dataclass(frozen=True)
class Noise:
    """Images of noise, in the place of a data set."""

    n: int
    size: int
    n_classes: int = 10
    n_mask_classes: int = 0

    def __len__(self) -> int:
        return self.n

    def batch(self, indices: Sequence[int]) -> Batch:
        """The images at these indices, each from its own seed."""
        drawn = [torch.Generator().manual_seed(int(index)) for index in indices]
        images = torch.stack([torch.rand(3, self.size, self.size, generator=each) for each in drawn])
        return Batch(images, torch.tensor(list(indices)) % self.n_classes)


@click.command()
@click.option("--device", default="auto")
@click.option("--precision", type=click.Choice(["fp32", "bf16", "fp16"]), default="fp32")
@click.option("--compile", "compiled", is_flag=True)
@click.option("--tf32", is_flag=True)
@click.option("--max-batch", type=int)
@click.option("--triggers", default=4)
@click.option("--images", default=4)
@click.option("--steps", default=2)
@click.option("--batch", default=4)
@click.option("--model", "models", multiple=True, default=tuple(PLANTED))
def main(models: Sequence[str], triggers: int, images: int, steps: int, batch: int, device: str, **how: object) -> None:
    compute = Compute(pick_device(device), **how)  # type: ignore[arg-type]
    compute.apply()
    print(compute.facts(), f"torch {torch.__version__}", flush=True)
    for ref in models:
        method = ActiveMark(n_triggers=triggers, n_images=images, steps=steps, batch=batch)
        print(describe(measure_model(ref, method, compute)), flush=True)


def measure_model(ref: str, method: ActiveMark, compute: Compute) -> dict[str, Any]:
    """Profile, embed and extract once; what each took."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = load_skeleton(ref, manager().registry).place(compute)
    planted = PLANTED.get(ref, model.n_blocks // 2)
    plant(model, planted)
    facts, size = model.facts(), model.backbone.image_size
    profile = activation_profile(model, Noise(4, size).batch(range(4)).images)
    splits = {"owner": Noise(method.n_images, size), "trigger": Noise(method.n_triggers, size)}
    with tempfile.TemporaryDirectory() as folder:
        ctx = amb.Context(("0",), splits, Path(folder), compute, progress=make_progress(quiet=False))  # type: ignore[arg-type]
        method_of(method, steps=1).embed(model, ctx)  # warms up
        with measure(compute.device) as none:
            method_of(method, steps=1).embed(model, ctx)
        with measure(compute.device) as some:
            embedding = method_of(method, steps=1 + method.steps).embed(model, ctx)
        with measure(compute.device) as reading:
            method.extract(amb.SuspectView(embedding.model, method.access), embedding.key, replace(ctx, splits={}))
    return {
        "model": ref,
        **facts._asdict(),
        "parameters": sum(weight.numel() for weight in model.parameters()),
        "planted_block": planted,
        "found_block": profile.expressive_block,
        "batch": method.batch,
        "seconds_step": (some.seconds - none.seconds) / method.steps,
        "seconds_embed": some.seconds,
        "seconds_image": reading.seconds / method.n_triggers,
        "peak_memory_mib": {"embed": some.peak_memory_mib, "extract": reading.peak_memory_mib},
    }


def describe(found: Mapping[str, Any]) -> str:
    """The same in sentences."""
    memory = found["peak_memory_mib"]
    return (
        f"\n{found['model']}: {found['parameters'] / 1e6:.0f} M parameters, {found['n_blocks']} blocks, "
        f"{found['n_tokens']} tokens of {found['dim']}\n"
        f"profile: planted at block {found['planted_block']}, found at block {found['found_block']}\n"
        f"embed: {found['seconds_step']:.2f} s a step of {found['batch']} images and both paths; {found['seconds_embed']:.1f} s in all\n"
        f"extract: {found['seconds_image']:.3f} s an image\n"
        f"peak memory: {memory['embed']:,.0f} MiB to embed, {memory['extract']:,.0f} MiB to extract"
    )


def method_of(method: ActiveMark, steps: int) -> ActiveMark:
    """The same with another number of steps."""
    return method.model_copy(update={"steps": steps})


@torch.no_grad()
def plant(model: amb.VisionModel, block: int) -> None:
    """Make the block add a large number to two features of every token."""
    parts = model.backbone.parts(block)
    if parts is None or parts.down.bias is None:
        raise SystemExit(f"{model.ref} has no bias in block {block} to plant massive activations with.")
    parts.down.bias[[7, 300]] += 500.0


if __name__ == "__main__":
    started = time.perf_counter()
    main(standalone_mode=False)
    print(f"\n{time.perf_counter() - started:.0f} s in all")
