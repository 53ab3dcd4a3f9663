"""How to compute: on which device, in which precision, how many images at once. No result depends on it beyond rounding."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, get_args

from amb.errors import BadParamsError
from amb.runtime.processes import count_cores

if TYPE_CHECKING:
    import torch


Precision = Literal["fp32", "bf16", "fp16"]
"""Of the arithmetic inside a model's blocks; weights, losses and everything a method computes itself stay fp32."""
PRECISIONS: Final[tuple[Precision, ...]] = get_args(Precision)


@dataclass(frozen=True)
class Compute:
    """What `--device`, `--precision` and their like say."""

    device: str = "cpu"
    """A torch device that is there: `cpu`, `cuda`, `cuda:1`, `mps`."""
    precision: Precision = "fp32"
    compiled: bool = False
    """Pass blocks through torch.compile."""
    tf32: bool = False
    """Let fp32 products of a GPU be rounded to TF32."""
    deterministic: bool = False
    """Take torch's deterministic kernels where it has them, and warn where it has none."""
    max_batch: int | None = None
    """Most images in one pass; what is more goes in parts, gradients accumulated. None: as many as fit."""
    load_threads: int = 0
    """Threads that read images ahead; 0 reads them when they are needed."""

    def definition(self) -> dict[str, Any]:
        """What a stored result depends on: the kind of device, and whatever rounds otherwise than plain fp32."""
        changed = {"precision": self.precision, "compiled": self.compiled, "tf32": self.tf32}
        usual = {"precision": "fp32", "compiled": False, "tf32": False}
        others = {name: value for name, value in changed.items() if value != usual[name]}
        return {"device": self.device.partition(":")[0], **others}

    def apply(self) -> None:
        """Set torch's switches for this process."""
        import torch

        torch.set_float32_matmul_precision("high" if self.tf32 else "highest")
        torch.backends.cudnn.allow_tf32 = self.tf32
        if self.deterministic:
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS is deterministic only with it
            torch.backends.cudnn.benchmark = False
            torch.use_deterministic_algorithms(True, warn_only=True)

    def facts(self) -> dict[str, Any]:
        """What results say of it: as asked, and what the device is."""
        return {
            "device": self.device,
            "device_name": _find_device_name(self.device),
            "precision": self.precision,
            "compiled": self.compiled,
            "tf32": self.tf32,
            "deterministic": self.deterministic,
            "max_batch": self.max_batch,
        }


def pick_compute(device: str = "auto", load_threads: int | None = None, **options: Any) -> Compute:
    """How to compute on a device that is really there; `options` are Compute's other fields. Raises BadParamsError."""
    there = pick_device(device)
    return Compute(there, load_threads=pick_threads(load_threads, there), **options)


def pick_device(wanted: str) -> str:
    """A torch device that is really there. Raises BadParamsError."""
    if wanted == "cpu":
        return wanted
    if wanted != "auto" and not re.fullmatch(r"cuda(:\d+)?|mps", wanted):
        raise BadParamsError(f"There is no device '{wanted}'. It is auto, cpu, cuda, cuda:N or mps.")
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    has_mps = torch.backends.mps.is_available()
    if wanted == "auto":
        return "cuda" if count else "mps" if has_mps else "cpu"
    if wanted == "mps" and not has_mps:
        raise BadParamsError("The device mps was asked for, but this machine has no Apple GPU. Use --device cpu.")
    if wanted != "mps" and int(wanted.partition(":")[2] or 0) >= count:
        raise BadParamsError(f"The device {wanted} was asked for, but this machine has {count} GPUs. Use --device cpu.")
    return wanted


def pick_threads(wanted: int | None, device: str) -> int:
    """How many threads read images ahead: as asked; else up to 8 beside a GPU, and none beside a busy CPU."""
    if wanted is not None:
        return wanted
    return 0 if device == "cpu" else min(8, count_cores())


def dtype_of(precision: Precision) -> torch.dtype:
    """The type that autocast takes."""
    import torch

    return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]


def _find_device_name(device: str) -> str:
    if device.startswith("cuda"):
        import torch

        return torch.cuda.get_device_name(device)
    return device
