"""Which options of a network are sizes, and what a size may be: a whole number, 1 or more, or a short list of them."""

from __future__ import annotations

from collections.abc import Mapping
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


def refuse_sizes(whose: str, options: Mapping[str, Any]) -> None:
    """Raise CheckpointError where a size is a switch, a fraction, zero or less, or a list that no network has."""
    for name in sorted(SIZES & set(options)):
        value = options[name]
        numbers = value if isinstance(value, list | tuple) else [value]
        if not 1 <= len(numbers) <= _LONGEST or not all(type(each) is int and each >= 1 for each in numbers):
            said = str(value)[:80]
            raise amb.CheckpointError(f"{whose}: {name} is a whole number, 1 or more, or a list of them, not {said}.")
