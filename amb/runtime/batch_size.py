"""How many images fit through a model at once: learnt when memory runs out, and said."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any, Self, TypeVar

from amb.errors import OutOfMemoryError

T = TypeVar("T")


class BatchSizeLimiter:
    """The most images in one pass. Whoever shares it learns from what did not fit before.

    It is of the machine, not of a model: a copy of a model shares its original's.
    """

    def __init__(self, what: str, most: int | None = None, say: Callable[[str], None] = lambda _: None) -> None:
        """`what` names the work in messages; `most` None is as many as fit."""
        self.what = what
        self.most = most
        self.shrunk = False
        """Whether memory has run out."""
        self._say = say

    def __deepcopy__(self, _: Any) -> Self:
        return self

    def parts(self, n: int, most: int | None = None) -> list[slice]:
        """`n` rows in as few parts as the room and `most` allow, of sizes as equal as can be."""
        most = min(self.most or n, most or n, n)
        n_parts = max(1, -(-n // max(1, most)))
        edges = [round(part * n / n_parts) for part in range(n_parts + 1)]
        return [slice(*pair) for pair in pairwise(edges)]

    def fit(self, work: Callable[[list[slice]], T], n: int, most: int | None = None) -> T:
        """What `work` makes of the parts of `n` rows, no larger than `most`; begun anew with smaller ones while memory runs out.

        Raises OutOfMemoryError where a single row does not fit.
        """
        while True:
            parts = self.parts(n, most)
            try:
                return work(parts)
            except (RuntimeError, MemoryError) as error:
                if not ran_out(error):
                    raise
                reason = str(error).partition("\n")[0]
            self._shrink_batch(
                max(part.stop - part.start for part in parts), reason
            )  # the frames above are gone by now

    def _shrink_batch(self, size: int, reason: str) -> None:
        if size <= 1:
            raise OutOfMemoryError(
                f"Memory ran out {self.what} with one image at a time ({reason}). "
                "Take a smaller model or image size, --precision bf16, or another device."
            )
        _free_memory()
        self.most, self.shrunk = size // 2, True
        self._say(f"memory ran out {self.what} with {size} images at once; going on with {self.most} at once")


def ran_out(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on whichever device."""
    import torch

    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and ("out of memory" in text or "can't allocate memory" in text)


def _free_memory() -> None:
    import gc

    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if torch.backends.mps.is_available():
        torch.mps.empty_cache()
