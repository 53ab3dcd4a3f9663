"""Which answer counts where a question was answered more than once."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from typing import TypeVar

T = TypeVar("T")


def keep_latest(
    answers: Iterable[T], question: Callable[[T], Hashable], has_verdict: Callable[[T], bool] = lambda _: True
) -> list[T]:
    """Each question once, from answers in the order in which they were given: of its verdicts the latest.

    An answer without a verdict counts only where no earlier one has a verdict. The order is that of the questions.
    """
    kept: dict[Hashable, T] = {}
    for answer in answers:
        asked = question(answer)
        if asked not in kept or has_verdict(answer) or not has_verdict(kept[asked]):
            kept[asked] = answer
    return list(kept.values())
