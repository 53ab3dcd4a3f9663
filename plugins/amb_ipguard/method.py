"""IPGuard's parameters, presets and verbs; the torch work is in `search` and `fingerprint`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

import amb

if TYPE_CHECKING:
    import torch

    from amb import SuspectView, VisionModel


class IPGuard(amb.Method):
    """Fingerprint a classifier by points near its decision boundary; the model stays as it is.

    The search moves images x, in [0, 1], down ReLU(Z_i - Z_j + k) + ReLU(max_{t not i, j} Z_t - Z_i), where Z are the
    logits, i is the owner's label of the start and j the target. At 0 a point lies in class j with a margin of at
    least k, and i is the runner-up. A new forward pass checks every point; those that fail are kept out of the key.
    The key is the points and their labels j; a suspect is asked for its labels alone. The paper has no fixed
    threshold: it measures the area under min(robustness, uniqueness) over all thresholds.

    Points are kept as 32-bit floats, since rounding to 8 bits could take them back over the boundary. A service that
    takes 8-bit images only sees them rounded: choose a k with room for that.
    """

    name: ClassVar[str] = "ipguard"
    source: ClassVar[str] = "Cao, Jia and Gong, AsiaCCS 2021, arXiv 1910.12903: its objective over the logits"
    access: ClassVar[amb.Access] = "labels"
    protects: ClassVar[Literal["encoder", "classifier"]] = "classifier"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "ipguard-noise": {"start": "noise"},
        "ipguard-least-likely": {"target": "least-likely"},
    }

    n_points: int = Field(100, ge=1)
    """Points to search for; the key has those that pass the check."""
    target: Literal["random", "least-likely"] = "random"
    """The class j in which a point shall lie: any but the start's own, or the one with the start's smallest logit."""
    start: Literal["image", "noise"] = "image"
    """Where the search starts: a trigger image, or pixels drawn uniformly from [0, 1]."""
    k: float = Field(1.0, ge=1e-3)
    """Least margin Z_j - Z_i, in logits. Larger is more robust and less unique. The default is ours: with 0.1, 1 and
    5, a 60 % prune of `tiny/owner` kept 0.77, 0.91 and 1.00 of the labels, the most alike independent 0.20, 0.24
    and 0.42 (seed 0)."""
    lr: float = Field(1e-2, gt=0)
    """Step size on the pixels (Adam)."""
    max_iterations: int = Field(1000, ge=1)
    """Most steps per point."""
    batch: int = Field(128, ge=1)
    """Most points that advance together; a finished one makes room for the next. Lower it where memory is short."""

    @property
    def default_tau(self) -> int:
        """0: a trial is one label, right or wrong."""
        return 0

    def skip(self, facts: amb.ModelFacts, key: amb.Key | None = None) -> str | None:
        """Needs three classes or more; as a suspect, as many classes as the owner."""
        if key is None:
            return (
                None if facts.n_classes is None or facts.n_classes >= _FEWEST_CLASSES else _explain_few_classes(facts)
            )
        return amb.explain_other_classes(facts, key)

    forgeries: ClassVar[Mapping[str, str]] = {
        "messages": "keep the owner's points and register the labels that the innocent model gives them; one query a point, "
        "and it matches by construction: whoever may register labels after the fact claims any model",
        "triggers": "search for points on the innocent model itself, each with at most `budget` iterations",
    }
    has_agreement: ClassVar[bool] = True

    def query_work(self) -> amb.Work:
        """Each point once; how long their search takes shows only then."""
        return amb.Work(read=self.n_points)

    def embed(self, owner: VisionModel, ctx: amb.Context) -> amb.Embedding:
        from amb_ipguard.fingerprint import embed

        return embed(self, owner, ctx)

    def extract(self, suspect: SuspectView, key: amb.Key, ctx: amb.Context) -> amb.Evidence:
        from amb_ipguard.fingerprint import extract

        return extract(suspect, key, self.batch)

    def forge(self, model: VisionModel, what: str, budget: int, ctx: amb.Context) -> amb.Key:
        return amb.forge_labels(
            self, model, what, budget, ctx, inputs="points", limit="max_iterations", batch=self.batch
        )

    def agreement(self, model: VisionModel, key: amb.Key, n: int, drawn: torch.Generator) -> torch.Tensor:
        return amb.label_agreement(model, key, "points", n, drawn)


_FEWEST_CLASSES = 3  # i, j and one to stay away from


def _explain_few_classes(facts: amb.ModelFacts) -> str:
    return f"{facts.ref} has {facts.n_classes} classes, a point between two of them needs {_FEWEST_CLASSES} or more"
