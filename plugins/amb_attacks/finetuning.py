"""The learning-rate factor under its former name; the training itself is in `amb.tuning`."""

from __future__ import annotations

from amb.tuning import Schedule, Shape


def _factor(shape: Shape, step: int, n_steps: int) -> float:
    return Schedule(shape).factor(step, n_steps)
