"""Forging keys, as far as methods have it in common: which forgeries there are, and the grinding of secrets."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Final

from amb.errors import BadParamsError, near_names

if TYPE_CHECKING:
    from amb.api.context import Context
    from amb.api.interfaces import Method
    from amb.api.records import Key

_DRAWN: Final = 32
"""Secrets that are tried together."""


def require_forgery(method: Method, what: str) -> None:
    """Raise BadParamsError where a method does not say how this of its key could be forged."""
    if what not in method.forgeries:
        offered = ", ".join(method.forgeries) or "nothing"
        hint = near_names(what, method.forgeries)
        raise BadParamsError(f"method {method.name} does not forge '{what}'.{hint} It forges {offered}.")


# Keys whose parts follow from their secret: all that is left is to draw again, one lottery ticket a try


def require_key(method: Method, ctx: Context) -> Key:
    """The honest key, whose public parts the claimant keeps. Raises BadParamsError."""
    if ctx.key is None:
        raise BadParamsError(f"method {method.name}: forging a secret starts from the owner's key; there is none.")
    return ctx.key


def grind(
    method: Method,
    key: Key,
    budget: int,
    ctx: Context,
    n_bits: int,
    count_right: Callable[[Sequence[Key]], Sequence[int]],
) -> Key:
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


def _draw_keys(method: Method, key: Key, budget: int, ctx: Context) -> Iterator[Key]:
    drawn = ctx.generator("forged secrets")
    return (method.redraw(key, drawn) for _ in range(budget))
