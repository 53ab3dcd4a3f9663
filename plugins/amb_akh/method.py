"""AKH's parameters, presets and verbs; the torch work is in `fingerprint`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

import amb

if TYPE_CHECKING:
    import torch

    from amb import SuspectView, VisionModel


class AKH(amb.Method):
    """Fingerprint a classifier by images that it gets wrong: no search at all; the model stays as it is.

    Right answers are alike in all good models, wrong ones are each model's own (the "Anna Karenina heuristic"). The key is
    images that the owner's model misclassifies and the labels that it gives them; a suspect is asked for its labels.
    On a par with elaborate fingerprints in the paper, so it is the baseline that they have to beat. `akh-random` is the
    control of the control: any images, right or wrong.

    Innocent models that were trained on such images make some of the same mistakes, and on random images nearly all the same
    answers, so agreement has a high base rate: no null is exact, and a verdict rests on the negatives. The paper's own
    statistic is the share of labels that agree, which is R at tau = 0 here; it sets no threshold but compares the areas under
    ROC curves over many models.

    Adapted: the paper draws its queries from the training or from the test set of its models; here from the owner's or from
    the trigger images. A key is smaller than `n_queries` where fewer images are misclassified.
    """

    name: ClassVar[str] = "akh"
    source: ClassVar[str] = "Godinot et al. 2024, QuRD, arXiv 2412.13021: its baseline AKH, labels compared one by one"
    access: ClassVar[amb.Access] = "labels"
    protects: ClassVar[Literal["encoder", "classifier"]] = "classifier"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"akh-random": {"queries": "random"}}

    n_queries: int = Field(100, ge=1)
    """Images in the key, at most."""
    queries: Literal["misclassified", "random"] = "misclassified"
    """Which images: those that the owner's model gets wrong, or any."""
    images: Literal["owner", "trigger"] = "owner"
    """Whose split they are drawn from: the images that the owner trained on, or those kept for keys."""
    n_images: int = Field(8192, ge=1)
    """Images to look for wrong answers among."""
    batch: int = Field(256, ge=1)
    """Images that are read at once."""

    @property
    def default_tau(self) -> int:
        """0: a trial is one label, right or wrong."""
        return 0

    def skip(self, facts: amb.ModelFacts, key: amb.Key | None = None) -> str | None:
        """Needs classes to be wrong about; as a suspect, as many as the owner."""
        if key is None:
            return f"{facts.ref} has one class and cannot be wrong" if facts.n_classes == 1 else None
        return amb.explain_other_classes(facts, key)

    forgeries: ClassVar[Mapping[str, str]] = {
        "messages": "keep the owner's images and register the labels that the innocent model gives them; one query an image, "
        "and it matches by construction",
        "triggers": "look for images that the innocent model itself gets wrong, among `budget` images",
    }
    has_agreement: ClassVar[bool] = True

    def work(self, facts: amb.ModelFacts) -> amb.Work:
        """Each image that is looked at once."""
        return amb.Work(read=self.n_queries if self.queries == "random" else self.n_images)

    def query_work(self) -> amb.Work:
        """Each query once."""
        return amb.Work(read=self.n_queries)

    def embed(self, owner: VisionModel, ctx: amb.Context) -> amb.Embedding:
        from amb_akh.fingerprint import embed

        return embed(self, owner, ctx)

    def extract(self, suspect: SuspectView, key: amb.Key, ctx: amb.Context) -> amb.Evidence:
        from amb_akh.fingerprint import extract

        return extract(suspect, key, self.batch)

    def forge(self, model: VisionModel, what: str, budget: int, ctx: amb.Context) -> amb.Key:
        return amb.forge_labels(self, model, what, budget, ctx, inputs="queries", limit="n_images", batch=self.batch)

    def agreement(self, model: VisionModel, key: amb.Key, n: int, drawn: torch.Generator) -> torch.Tensor:
        return amb.label_agreement(model, key, "queries", n, drawn)
