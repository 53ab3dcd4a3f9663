"""Which device to compute on."""

from __future__ import annotations

import re

from amb.errors import BadParamsError


def pick_device(wanted: str) -> str:
    """A torch device that is really there. Raises BadParamsError."""
    if wanted == "cpu":
        return wanted
    if wanted != "auto" and not re.fullmatch(r"cuda(:\d+)?", wanted):
        raise BadParamsError(f"There is no device '{wanted}'. It is auto, cpu, cuda or cuda:N.")
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if wanted == "auto":
        return "cuda" if count else "cpu"
    if int(wanted.partition(":")[2] or 0) >= count:
        raise BadParamsError(f"The device {wanted} was asked for, but this machine has {count} GPUs. Use --device cpu.")
    return wanted
