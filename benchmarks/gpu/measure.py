"""All that needs a GPU, in one command of some minutes, into one JSON file that is written anew after each part.

ActiveMark's step and extraction on full-size networks with random weights, in fp32, bf16 and bf16 compiled, with their
memory; then table 2 on the suite of photographs, where its models are here.

    benchmarks/gpu/run --out gpu.json
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any, Final

import click
import torch

import amb
from amb.runtime.compute import Compute

HERE: Final = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "speed"))

from foundation import PLANTED, describe, measure_model  # noqa: E402 (a script beside this one)

from amb_activemark.method import ActiveMark  # noqa: E402

MODES: Final[dict[str, dict[str, Any]]] = {
    "fp32": {},
    "bf16": {"precision": "bf16"},
    "bf16 compiled": {"precision": "bf16", "compiled": True},
}


@click.command()
@click.option("--out", type=click.Path(path_type=Path), default=Path("gpu.json"), show_default=True)
@click.option("--device", default="cuda", show_default=True, help="cpu tries the command where no GPU is.")
@click.option("--triggers", default=200, show_default=True)
@click.option("--images", default=200, show_default=True)
@click.option("--steps", default=20, show_default=True)
@click.option("--batch", default=16, show_default=True)
@click.option("--model", "models", multiple=True, default=tuple(PLANTED))
def main(out: Path, device: str, models: tuple[str, ...], **size: int) -> None:
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise SystemExit(
            "No GPU is here: torch finds no CUDA device. Run this where one is, or try it with --device cpu."
        )
    card = torch.cuda.get_device_name() if device.startswith("cuda") else "none"
    found: dict[str, Any] = {"card": card, "torch": torch.__version__, "amb": amb.__version__, "foundation": {}}
    method = ActiveMark(n_triggers=size["triggers"], n_images=size["images"], steps=size["steps"], batch=size["batch"])
    for ref in models:
        for mode, how in MODES.items():
            compute = Compute(device, **how)
            compute.apply()
            measured = measure_model(ref, method, compute)
            print(mode, describe(measured), flush=True)
            found["foundation"][f"{ref}, {mode}"] = measured
            write(found, out)
    found["photos"] = measure_photos(device, out.with_suffix(""))
    write(found, out)


def measure_photos(device: str, output_dir: Path) -> dict[str, Any]:
    """Table 2 on the photographs, seed 0: every cell's verdict, and how long all took."""
    began = time.perf_counter()
    try:
        results = amb.sweep(
            HERE.parent / "photos" / "photos-table2.yaml", only=["seed=0"], device=device, output_dir=output_dir
        )
    except amb.MissingError as error:
        return {"missing": str(error)}
    frame = results.to_frame()
    columns = ["method", "suspect", "kind", "status", "detection_rate", "p_value", "claim", "seconds_extract"]
    return {"seconds": time.perf_counter() - began, "cells": json.loads(frame[columns].to_json(orient="records"))}


def write(found: dict[str, Any], out: Path) -> None:
    """What there is so far."""
    out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(f"written: {out}", flush=True)


if __name__ == "__main__":
    try:
        main(standalone_mode=False)
    except (amb.AmbError, click.ClickException) as error:
        raise SystemExit(str(error)) from None
