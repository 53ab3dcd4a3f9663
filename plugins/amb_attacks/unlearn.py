"""`adaptive-unlearn`: fine-tuning against the key, or against one that the thief made himself; parameters and presets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

import amb

if TYPE_CHECKING:
    from amb import VisionModel


class Unlearn(amb.Attack):
    """Train the encoder until the key reads no better than by chance, while tokens and embedding stay near the stolen ones.

    Minimises max(agreement - chance, 0) + lam * drift with AdamW. The agreement is the method's own, over a batch of the
    key's trials; the drift is |f - f~|^2 / |f|^2 of output tokens and embedding on the attacker's images, without labels.
    With `knows_key` the secret has leaked, the worst case. Otherwise the thief knows the method and makes a key that reads
    on the stolen model as it is: with networks or inputs of his own where the method says how, or else by embedding once,
    which for a fingerprint is the same. Heads stay. The notes give the rate of the key that he trained against,
    before and after.
    """

    name: ClassVar[str] = "adaptive-unlearn"
    thief: ClassVar[amb.Thief] = "unlearns the mark"
    source: ClassVar[str] = "Lukas et al. 2022, arXiv 2108.04974 (adversaries who know the method); the loss is ours"
    strength_parameter: ClassVar[str | None] = "steps"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"adaptive-unlearn-key": {"knows_key": True}}

    knows_key: bool = False
    """Train against the owner's key, or against one of the thief's own."""
    steps: int = Field(200, ge=0)
    """Training steps."""
    lr: float = Field(3e-4, gt=0)
    """Learning rate of the encoder (AdamW without weight decay)."""
    lam: float = Field(10.0, ge=0)
    """Weight of the drift."""
    batch: int = Field(32, ge=1)
    """Images per step, and inputs of the key per step."""
    n_images: int = Field(2048, ge=1)
    """How many of the attacker's images to hold the features on."""
    budget: int = Field(400, ge=1)
    """What the thief spends on a key of his own, as the method counts it."""

    @property
    def knows(self) -> amb.Knows:
        return "key" if self.knows_key else "method"

    def skip_method(self, method: amb.Method) -> str | None:
        if method.has_agreement:
            return None
        return f"{method.name} has no agreement that could be trained against"

    def work(self, method: amb.Method, facts: amb.ModelFacts) -> amb.Work | None:
        """Inputs of the key and images in every step; what a key of the thief's own costs, only the method knows."""
        n = self.steps * self.batch
        return amb.Work(read=n, trained=2 * n) if self.knows_key else None

    def apply(self, model: VisionModel, ctx: amb.Context) -> VisionModel:
        from amb_attacks.unlearn_torch import unlearn

        return unlearn(self, model, ctx)
