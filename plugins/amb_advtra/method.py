"""ADV-TRA's parameters and verbs; the torch work is in `trajectories`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

import amb

if TYPE_CHECKING:
    import torch

    from amb import SuspectView, VisionModel


class AdvTra(amb.Method):
    """Fingerprint a classifier by adversarial trajectories: paths of samples that cross its decision boundaries.

    A path leaves an image for another class by steps along the sign of the gradient. The sizes of the steps are
    sought so that the last one is the first to arrive; as many steps again, of the same sizes in reverse, lead on
    into the class. From there the path leaves for the next class, in random order. A suspect that gives most
    samples of a path the labels that the owner's model gives them matches it. The model itself is not changed.

    Samples are kept as 32-bit floats: a service that takes 8-bit images only sees them rounded.
    """

    name: ClassVar[str] = "advtra"
    source: ClassVar[str] = "Xu et al. 2024, United We Stand, Divided We Fall (NeurIPS)"
    access: ClassVar[amb.Access] = "labels"
    protects: ClassVar[Literal["encoder", "classifier"]] = "classifier"

    n_trajectories: int = Field(100, ge=1)
    """Trajectories to search for, each from a trigger image of its own; those not found are left out and counted."""
    n_classes: int = Field(10, ge=2)
    """Classes that a trajectory visits, its own included (m). A model with fewer is visited in more than one round."""
    n_steps: int = Field(2, ge=1, le=20)
    """Steps to a boundary, and as many beyond it (l)."""
    first_step: float = Field(0.05, gt=0, le=1)
    """Size of the first step before the search; each later one is smaller by 4 % of it (.05, .048, ...). Smaller is
    more unique: with .05 and .02 the most alike independent of `tiny/owner` matched .78 and .33 of the trajectories,
    a 60 % prune all (seed 0, 40 trajectories)."""
    brake: float = Field(0.9, gt=0, le=1)
    """What a step's size should be of the one before (a), so that steps shorten towards the boundary."""
    rate: float = Field(0.05, ge=0, lt=0.5)
    """Learning rate of the step sizes."""
    control: float = Field(0.9, gt=0, lt=1)
    """Length control: what all steps are multiplied by when the class is reached early, and divided by when late."""
    max_iterations: int = Field(300, ge=1)
    """Most step sizes tried between one class and the next."""
    n_orders: int = Field(5, ge=1)
    """Most orders of classes tried from one image, since some classes are out of reach; ours, not the paper's. With one
    order 80 to 89 % of the trajectories on `tiny/owner` were found, with five all."""
    batch: int = Field(128, ge=1)
    """Most images that a model sees at once; of no effect on the result but rounding."""

    @property
    def n_symbols(self) -> int:
        """Samples of a trajectory: where two segments join, the sample they share counts once."""
        return 1 + 2 * self.n_steps * (self.n_classes - 1)

    @property
    def default_tau(self) -> int:
        """Most wrong labels with which fewer than half are wrong: the paper's mutation rate < .5."""
        return (self.n_symbols - 1) // 2

    def skip(self, facts: amb.ModelFacts, key: amb.Key | None = None) -> str | None:
        """Needs two classes; as a suspect, a head for the classes of the key. An owner without a head gets one."""
        if key is None:
            few = facts.n_classes is not None and facts.n_classes < 2
            return f"{facts.ref} has {facts.n_classes} class, so no boundary to cross" if few else None
        return amb.explain_other_classes(facts, key)

    forgeries: ClassVar[Mapping[str, str]] = {
        "messages": "keep the owner's samples and register the labels that the innocent model gives them; one query a "
        "sample, and it matches by construction: whoever may register labels after the fact claims any model",
        "triggers": "search for trajectories on the innocent model itself, with at most `budget` iterations a segment",
    }
    has_agreement: ClassVar[bool] = True

    def query_work(self) -> amb.Work:
        """Each sample once; how long their search takes shows only then."""
        return amb.Work(read=self.n_trajectories * self.n_symbols)

    def embed(self, owner: VisionModel, ctx: amb.Context) -> amb.Embedding:
        from amb_advtra.trajectories import embed

        return embed(self, owner, ctx)

    def extract(self, suspect: SuspectView, key: amb.Key, ctx: amb.Context) -> amb.Evidence:
        from amb_advtra.trajectories import extract

        return extract(self, suspect, key)

    def forge(self, model: VisionModel, what: str, budget: int, ctx: amb.Context) -> amb.Key:
        return amb.forge_labels(
            self, model, what, budget, ctx, inputs="samples", limit="max_iterations", batch=self.batch
        )

    def agreement(self, model: VisionModel, key: amb.Key, n: int, drawn: torch.Generator) -> torch.Tensor:
        return amb.label_agreement(model, key, "samples", n, drawn)
