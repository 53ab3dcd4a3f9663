"""The steps of an optimiser: gradients accumulated over parts that fit into memory, scaled where fp16 needs it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from amb.api.context import Context


class GradientAccumulator:
    """Takes the steps of a training loop.

    A batch that does not fit goes in parts: their gradients add up to that of the whole batch, so the step is the same
    up to rounding. What a network makes of a batch as a whole, as batch norm and dropout do, it then makes of the parts.
    """

    def __init__(
        self,
        ctx: Context,
        optimizer: torch.optim.Optimizer,
        rate: torch.optim.lr_scheduler.LRScheduler | None = None,
    ) -> None:
        self._ctx, self._optimizer, self._rate = ctx, optimizer, rate
        self._scaler = torch.amp.GradScaler(ctx.device.partition(":")[0], enabled=ctx.compute.precision == "fp16")

    def step(self, loss_of: Callable[[slice], Tensor], n: int) -> Tensor:
        """One step down the mean loss of `n` rows; `loss_of(part)` is the mean loss of a part. Returns the mean loss."""
        loss = self._ctx.limiter.fit(lambda parts: self._add_gradients(loss_of, parts, n), n)
        self._finish_step()
        return loss

    def step_whole(self, loss_of: Callable[[], Tensor]) -> Tensor:
        """One step down a loss that exists of whole batches only, such as a contrast between all pairs of rows."""
        loss = loss_of()
        self._scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        self._finish_step()
        return loss.detach()

    def _add_gradients(self, loss_of: Callable[[slice], Tensor], parts: list[slice], n: int) -> Tensor:
        self._optimizer.zero_grad()  # what an attempt that ran out of memory left
        losses = []
        for part in parts:
            loss = loss_of(part)
            if len(parts) > 1:
                loss = loss * ((part.stop - part.start) / n)
            self._scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
            losses.append(loss.detach())
        return torch.stack(losses).sum()

    def _finish_step(self) -> None:
        before = self._scaler.get_scale()
        self._scaler.step(self._optimizer)
        self._scaler.update()
        self._optimizer.zero_grad()
        if self._rate is not None and self._scaler.get_scale() >= before:  # a step that overflowed was not taken
            self._rate.step()
        if self._ctx.limiter.shrunk:
            self._ctx.note(images_at_once=self._ctx.limiter.most)
