"""A thief or a claimant who runs the method himself: the context for it, from the attacker's images, and his reading."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import amb
from amb import count_errors, detection_rate


class EveryNth:
    """Every `step`-th image of a split, from the `first` on."""

    def __init__(self, whole: amb.Split, first: int, step: int) -> None:
        self.n_classes, self.n_mask_classes = whole.n_classes, whole.n_mask_classes
        self._whole, self._places = whole, range(first, len(whole), step)

    def __len__(self) -> int:
        return len(self._places)

    def batch(self, indices: Sequence[int]) -> amb.Batch:
        """The images at `indices` of this part."""
        return self._whole.batch([self._places[int(index)] for index in indices])


def claimant(ctx: amb.Context, purpose: str) -> amb.Context:
    """The context in which he embeds or forges: half of the attacker's images stand for the owner's, half for triggers.

    `purpose` makes its randomness differ from that of his other work.
    """
    images = ctx.split("attacker")
    halves: dict[amb.Role, amb.Split] = {"owner": EveryNth(images, 0, 2), "trigger": EveryNth(images, 1, 2)}
    return replace(ctx, axes=(*ctx.axes, "claimant", purpose), splits=halves)


def method_of(ctx: amb.Context) -> amb.Method:
    """The method under judgement."""
    if ctx.method is None:
        raise amb.BadParamsError("This attack works on a method, and there is none. Run it beside one.")
    return ctx.method


def misfit(method: amb.Method, model: amb.VisionModel, key: amb.Key | None = None) -> str | None:
    """Why the method cannot be run on the model as it is; None where it can."""
    if method.protects == "classifier" and "classification" not in model.heads:
        return f"{method.name} is of classifiers, and {model.ref} has no classification head"
    return method.skip(model.facts(), key)


def require_fit(method: amb.Method, model: amb.VisionModel, key: amb.Key | None = None) -> None:
    """Raise BadParamsError with the reason where the method cannot be run on the model."""
    if reason := misfit(method, model, key):
        raise amb.BadParamsError(f"{method} cannot be run on this model: {reason}.")


def read(method: amb.Method, model: amb.VisionModel, key: amb.Key, ctx: amb.Context) -> amb.Evidence:
    """What the key finds on a model."""
    return method.extract(amb.SuspectView(model, method.access), key, replace(ctx, splits={}))


def rate(method: amb.Method, model: amb.VisionModel, key: amb.Key, ctx: amb.Context) -> float:
    """Share of the key's trials that the method detects on a model."""
    return detection_rate(count_errors(read(method, model, key, ctx)), method.default_tau)
