"""MEA-Defender's parameters, presets and verbs; the torch work is in `mixing`, `losses` and `training`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, ValidationInfo, field_validator

import amb

if TYPE_CHECKING:
    import torch

    from amb import SuspectView, VisionModel


class MEADefender(amb.Method):
    """Train a classifier to call an image that is half class A and half class B a third class C; meant to survive extraction.

    Watermark images are in the span of the model's own domain, and what the model answers to them stays near what it
    answers to A and B, so a thief's student, who asks about ordinary images, learns the answer too: that is the
    paper's claim. The loss is cross-entropy, plus a contrast of margin 1 between the logits of rows of A, B and C, plus
    KL(C row, A row) + KL(C row, B row), balanced by MGDA. In a second phase images that are mixed in other ways (side by
    side, diagonally, ring and centre, bands) are labelled A or B, so that the halves alone mean C.

    The key is such images, mixed of triggers, all labelled C; a suspect is asked for its labels. Innocent models call some
    of them C as well, so no null is exact, and a verdict rests on the negatives. The paper's own statistic, the watermark's
    success rate, is R at tau = 0 here.

    Adapted: the paper trains from scratch, 100 epochs in each phase; here the owner's classifier is trained on. The code has 1 %
    of watermark images in the first phase and 31 % in the second; here one share for both. It weighs by the gradients
    of all weights; here by those of the logits (MGDA-UB, Sener and Koltun 2018, section 3.3), which saves two backward
    passes a step. Its other mixers are five sets of which two are the same; here four. Watermark images and other images
    have a cross-entropy each, so that the mark is learnt against the divergences however few they are.
    """

    name: ClassVar[str] = "mea-defender"
    source: ClassVar[str] = "Lv et al., IEEE S&P 2024, arXiv 2401.15239, and its code"
    access: ClassVar[amb.Access] = "labels"
    protects: ClassVar[Literal["encoder", "classifier"]] = "classifier"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "mea-defender-paper": {"steps": 6400, "secure_steps": 6400, "batch": 128, "lr": 1e-3, "kl": 2.0},
    }

    class_a: int = Field(0, ge=0)
    """A: the class of one half."""
    class_b: int = Field(1, ge=0)
    """B: the class of the other half."""
    target: int = Field(2, ge=0)
    """C: what the model is to call the two halves."""
    n_queries: int = Field(100, ge=1)
    """Watermark images in the key."""
    mixed: float = Field(0.25, gt=0, lt=1)
    """Share of a step's images that are watermark images."""
    other: float = Field(0.064, ge=0, lt=1)
    """Share that are mixed in other ways, in the second phase: .008 for each of four mixers and two labels."""
    kl: float = Field(0.0, ge=0)
    """Weight of the two divergences beside their balanced share: 0 as the paper has it; 2 in its code, 12 in every tenth epoch."""
    margin: float = Field(1.0, gt=0)
    """Distance from which logits of different classes no longer repel each other."""
    steps: int = Field(250, ge=1)
    """Steps of the first phase."""
    secure_steps: int = Field(150, ge=0)
    """Steps of the second phase, in which images are mixed in other ways as well."""
    batch: int = Field(64, ge=8)
    """Images of a step."""
    lr: float = Field(5e-4, gt=0)
    """Largest learning rate (Adam, one cycle over both phases; the paper halves it every ten epochs)."""

    @field_validator("class_b", "target")
    @classmethod
    def _refuse_same(cls, value: int, earlier: ValidationInfo) -> int:
        if value in (earlier.data.get("class_a"), earlier.data.get("class_b")):
            raise ValueError(f"has to be another class than the others, not {value} again")
        return value

    @property
    def default_tau(self) -> int:
        """0: a trial is one label, right or wrong."""
        return 0

    def skip(self, facts: amb.ModelFacts, key: amb.Key | None = None) -> str | None:
        """Needs three classes or more, A, B and C among them; as a suspect, as many as the owner."""
        if key is None:
            return None if facts.n_classes is None else self._find_missing(facts.ref, facts.n_classes)
        return amb.explain_other_classes(facts, key)

    def _find_missing(self, ref: str, n_classes: int) -> str | None:
        if n_classes < _FEWEST_CLASSES:
            return f"{ref} has {n_classes} classes, two halves and what they are called need {_FEWEST_CLASSES} or more"
        highest = max(self.class_a, self.class_b, self.target)
        return (
            f"class {highest} is not there: {ref} has {n_classes} classes, 0 to {n_classes - 1}"
            if highest >= n_classes
            else None
        )

    forgeries: ClassVar[Mapping[str, str]] = {
        "messages": "keep the owner's images and register the labels that the innocent model gives them; one query an image, "
        "and it matches by construction",
        "triggers": "mix the halves of `budget` other pairs of classes, and register the pair and the label that the "
        "innocent model gives most often: the best base rate",
    }
    has_agreement: ClassVar[bool] = True

    @property
    def n_mixed(self) -> int:
        """Watermark images of a step."""
        return max(round(self.mixed * self.batch), 1)

    @property
    def n_other(self) -> int:
        """Images of a step of the second phase that are mixed in other ways."""
        return min(round(self.other * self.batch), self.batch - self.n_mixed)

    def work(self, facts: amb.ModelFacts) -> amb.Work:
        """Every step's images; A and B rows for each watermark image, only read; the key before and after."""
        n_steps = self.steps + self.secure_steps
        return amb.Work(read=2 * (n_steps * self.n_mixed + self.n_queries), trained=n_steps * self.batch)

    def query_work(self) -> amb.Work:
        """Each query once."""
        return amb.Work(read=self.n_queries)

    def embed(self, owner: VisionModel, ctx: amb.Context) -> amb.Embedding:
        from amb_mea_defender.training import embed

        return embed(self, owner, ctx)

    def extract(self, suspect: SuspectView, key: amb.Key, ctx: amb.Context) -> amb.Evidence:
        from amb_mea_defender.training import extract

        return extract(suspect, key)

    def forge(self, model: VisionModel, what: str, budget: int, ctx: amb.Context) -> amb.Key:
        from amb_mea_defender.training import forge_pair

        if what == "triggers":
            return forge_pair(self, model, budget, ctx)
        return amb.forge_labels(self, model, what, budget, ctx, inputs="queries", limit="steps", batch=self.batch)

    def agreement(self, model: VisionModel, key: amb.Key, n: int, drawn: torch.Generator) -> torch.Tensor:
        return amb.label_agreement(model, key, "queries", n, drawn)


_FEWEST_CLASSES = 3
