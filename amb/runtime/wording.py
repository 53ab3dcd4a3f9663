"""Words for numbers of things."""

from __future__ import annotations


def count(n: int, thing: str) -> str:
    """`1 method`, `2 methods`, `12,000 cells`: for things whose plural takes an s."""
    return f"{n:,} {thing}{'' if n == 1 else 's'}"
