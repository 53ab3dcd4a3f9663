"""Batches of images as they pass between suites, methods and attacks, and the walks over them that training needs."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor


class Batch(NamedTuple):
    """Images with what is known of them. Models normalise and resize images themselves."""

    images: Tensor  # (n, 3, height, width) float in [0, 1]
    labels: Tensor  # (n,) int64
    masks: Tensor | None = None  # (n, height, width) int64


@runtime_checkable
class Split(Protocol):
    """One share of a data set, addressed by index. The splits of a suite are disjoint."""

    n_classes: int
    n_mask_classes: int
    """0 where the data set has no masks."""

    def __len__(self) -> int: ...

    def batch(self, indices: Sequence[int]) -> Batch:
        """The images at `indices`; the same index always gives the same image."""
        ...


def in_order(split: Split, batch_size: int, limit: int | None = None, threads: int = 0) -> Iterator[Batch]:
    """Walk once over the first `limit` images of a split, in order."""
    rows = torch.arange(min(len(split), limit or len(split))).split(batch_size)  # type: ignore[no-untyped-call]
    yield from (batch for _, batch in read_ahead(split, rows, threads))


def read_ahead(
    split: Split, rows_of_batches: Iterable[Tensor], threads: int = 0, *, pin: bool = False
) -> Iterator[tuple[Tensor, Batch]]:
    """Rows of each batch with its images, in order; up to `threads` batches are read ahead, each in its own thread.

    Threads rather than processes: decoding and resizing images let go of the interpreter's lock, and workers of a sweep
    may have no children. `pin` puts images where a GPU reads them faster.
    """
    read = partial(_read_batch, split, pin=pin)
    if not threads:
        yield from ((rows, read(rows)) for rows in rows_of_batches)
        return
    ahead: deque[tuple[Tensor, Future[Batch]]] = deque()
    with ThreadPoolExecutor(threads, thread_name_prefix="amb-images") as pool:
        for rows in rows_of_batches:
            ahead.append((rows, pool.submit(read, rows)))
            if len(ahead) > threads:
                yield _take_arrived(ahead)
        while ahead:
            yield _take_arrived(ahead)


def _take_arrived(ahead: deque[tuple[Tensor, Future[Batch]]]) -> tuple[Tensor, Batch]:
    rows, batch = ahead.popleft()
    return rows, batch.result()


def _read_batch(split: Split, rows: Tensor, *, pin: bool) -> Batch:
    batch = split.batch(rows.tolist())
    return batch._replace(images=batch.images.pin_memory()) if pin else batch


def shuffled(n: int, batch_size: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Index batches of one epoch over `n` items in random order; a short last batch is kept."""
    order = torch.randperm(n, generator=generator)
    for start in range(0, n, batch_size):
        yield order[start : start + batch_size]


def endless(n: int, batch_size: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Index batches for ever, epoch after epoch."""
    while True:
        yield from shuffled(n, batch_size, generator)
