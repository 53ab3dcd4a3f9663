"""What a size of a network may be, and how many weights sizes make at least: reckoned before anything is built."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, Final

import amb

SIZES: Final = frozenset(
    [
        "attn_pooler_heads",
        "attn_pooler_queries",
        "channels",
        "depth",
        "depths",
        "dims",
        "embed_dim",
        "embedding_size",
        "head_width",
        "hidden_size",
        "hidden_sizes",
        "image_size",
        "img_size",
        "intermediate_size",
        "layers",
        "num_attention_heads",
        "num_heads",
        "num_hidden_layers",
        "num_stages",
        "output_stride",
        "patch_size",
        "pooler_output_size",
        "projection_dim",
        "width",
        "window_size",
    ]
)
"""In timm's, open_clip's and transformers' words; what may be 0, such as a number of registers, is not among them."""
_LONGEST: Final = 64
"""Sizes in a list: stages of a network, sides of a patch."""
MOST_BLOCKS: Final = 512
"""Blocks of a network; the deepest known encoder has 64."""
LARGEST_IMAGE: Final = 2048
"""Pixels of a side; no known encoder takes more."""
_DEPTHS: Final = ("num_hidden_layers", "depth", "layers", "depths")
_WIDTHS: Final = ("hidden_size", "embed_dim", "width", "hidden_sizes", "dims", "channels")


def refuse_sizes(whose: str, options: Mapping[str, Any]) -> None:
    """Raise CheckpointError where a size is none, or sizes make a network that does not fit into this machine's memory."""
    _refuse_no_sizes(whose, options)
    n_blocks, n_weights, n_bytes = _count_blocks(options), _count_weights(options), _count_memory()
    if n_blocks > MOST_BLOCKS:
        raise amb.CheckpointError(f"{whose} describes {n_blocks:,} blocks; amb loads networks of up to {MOST_BLOCKS}.")
    side = max(n for name in ("image_size", "img_size") for n in _list_numbers(options.get(name, 1)))
    if side > LARGEST_IMAGE:
        raise amb.CheckpointError(f"{whose} takes images of {side:,} pixels a side; amb loads up to {LARGEST_IMAGE:,}.")
    if 4 * n_weights > n_bytes // 2:  # the network, and the weights to fill it with
        raise amb.CheckpointError(
            f"{whose} describes a network of {n_weights:,} numbers or more, {4 * n_weights >> 30:,} GiB; this machine has "
            f"{n_bytes >> 30} GiB, and loading takes twice what the network does."
        )


def _count_blocks(options: Mapping[str, Any]) -> int:
    return sum(sum(_list_numbers(options[name])) for name in _DEPTHS if name in options)


def _count_weights(options: Mapping[str, Any]) -> int:
    """At least so many numbers: attention and MLP of every block of one width; of stages, those of the widest."""
    widths = [number for name in _WIDTHS if name in options for number in _list_numbers(options[name])]
    stages = any(isinstance(options.get(name), Sequence) for name in (*_DEPTHS, *_WIDTHS))
    width, depth = max(widths, default=1), 1 if stages else max(1, _count_blocks(options))
    ratio = options.get("mlp_ratio", 1)
    inside = options.get("intermediate_size") or width * (ratio if isinstance(ratio, int | float) else 1)
    return depth * int(4 * width**2 + 2 * width * inside)


def _list_numbers(value: Any) -> list[int]:
    return list(value) if isinstance(value, list | tuple) else [value]


def _count_memory() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _refuse_no_sizes(whose: str, options: Mapping[str, Any]) -> None:
    """Raise CheckpointError where a size is a switch, a fraction, zero or less, or a list that no network has."""
    for name in sorted(SIZES & set(options)):
        value = options[name]
        numbers = value if isinstance(value, list | tuple) else [value]
        if not 1 <= len(numbers) <= _LONGEST or not all(type(each) is int and each >= 1 for each in numbers):
            said = str(value)[:80]
            raise amb.CheckpointError(f"{whose}: {name} is a whole number, 1 or more, or a list of them, not {said}.")
