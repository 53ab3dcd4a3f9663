"""Forging a key whose parts follow from its secret: all that is left is to draw again, one lottery ticket a try."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Final

import amb

_DRAWN: Final = 32
"""Secrets that are tried together."""


def require_key(method: amb.Method, ctx: amb.Context) -> amb.Key:
    """The honest key, whose public parts the claimant keeps. Raises BadParamsError."""
    if ctx.key is None:
        raise amb.BadParamsError(f"method {method.name}: forging a secret starts from the owner's key; there is none.")
    return ctx.key


def grind(
    method: amb.Method,
    key: amb.Key,
    budget: int,
    ctx: amb.Context,
    n_bits: int,
    count_right: Callable[[Sequence[amb.Key]], Sequence[int]],
) -> amb.Key:
    """Of `budget` keys that differ in their secrets, the one of whose bits most are right. Notes its p beside 1 / budget."""
    from scipy.stats import binom

    best, most = key, -1
    tries = iter(ctx.progress.track(_draw_keys(method, key, budget, ctx), "forge secret", budget))
    while keys := list(islice(tries, _DRAWN)):
        for tried, right in zip(keys, count_right(keys), strict=True):
            if right > most:
                best, most = tried, right
    ctx.note(best_p=float(binom.sf(most - 1, n_bits, 0.5)), one_in_budget=1 / budget)
    return best


def _draw_keys(method: amb.Method, key: amb.Key, budget: int, ctx: amb.Context) -> Iterator[amb.Key]:
    drawn = ctx.generator("forged secrets")
    return (method.redraw(key, drawn) for _ in range(budget))
