"""`spread-features`: parameters and verbs; the torch work is in `features_torch`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

import amb

if TYPE_CHECKING:
    import torch

    from amb import SuspectView, VisionModel


class SpreadFeatures(amb.Method):
    """Add a small function of an image's content to its output embedding, along random directions; the bits are its signs.

    The marked model answers f(x) + e sum_j b_j s_j(x) u_j, where u_j are random unit directions, b_j the bits of random
    messages and s_j(x) = sqrt(2) sin(w <v_j, z(x)>) random functions of the whitened leading components z of the mean
    patch token that leaves the last frozen block. The blocks behind it are trained to that answer, patch tokens held. A
    suspect is read by correlating its difference from the unmarked embeddings with each s_j, along u_j. For any model made
    without the secret each bit is a fair coin: u_j is as likely as -u_j. All that is needed of a suspect is its
    embeddings of the trigger images.

    Where embeddings have another width, or point another way altogether, they are turned onto the unmarked ones first
    (orthogonal Procrustes), which knows nothing of the secret. Whoever has the unmarked model can subtract its answers.
    """

    name: ClassVar[str] = "spread-features"
    source: ClassVar[str] = (
        "this project, after Cox et al. 1997, spread spectrum watermarking, and CosWM (arXiv 2203.02777)"
    )
    access: ClassVar[amb.Access] = "features"
    null: ClassVar[amb.Null] = "exact"
    claims: ClassVar[amb.ClaimKind] = "marked release"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "spread-features128": {"n_messages": 4, "strength": 0.2},
    }

    n_messages: int = Field(2, ge=1)
    """Messages; each is a trial."""
    n_bits: int = Field(32, ge=1, le=4096)
    """Bits of a message."""
    strength: float = Field(0.3, gt=0, le=2)
    """e, as a share of the root mean square spread of a feature."""
    n_components: int = Field(8, ge=1)
    """Components of the mean patch token that z has."""
    frequency: float = Field(1.0, gt=0)
    """w: how fast s_j changes with the content. What the later blocks cannot learn carries nothing."""
    frozen: float = Field(1 / 3, gt=0, lt=1)
    """Share of the depth whose blocks stay as they are."""
    n_triggers: int = Field(1024, ge=2)
    """Images on which the key is read."""
    n_images: int = Field(2048, ge=2)
    """The owner's images that the later blocks are trained on."""
    steps: int = Field(400, ge=1)
    """Steps of AdamW, one cycle of the learning rate."""
    batch: int = Field(64, ge=2)
    """Images of a step."""
    lr: float = Field(2e-3, gt=0)
    """Largest learning rate of the cycle."""
    shrinkage: float = Field(0.1, gt=0)
    """Share of its mean variance that is added to the covariance of the difference before it is inverted."""

    @property
    def default_tau(self) -> int:
        """About a sixth of the bits: 5 of 32, as ActiveMark has it."""
        return 5 * self.n_bits // 32

    def skip(self, facts: amb.ModelFacts, key: amb.Key | None = None) -> str | None:
        """As an owner, a transformer of two blocks or more; any suspect that gives embeddings will do."""
        if key is None and facts.n_blocks < 2:
            return f"{facts.ref} has no transformer blocks to write a mark into"
        return None

    def work(self, facts: amb.ModelFacts) -> amb.Work:
        """The frozen part of every image once, the rest of it as often as it is trained on."""
        return amb.Work(read=self.n_images + self.n_triggers, trained=(1 - self.frozen) * self.steps * self.batch)

    def query_work(self) -> amb.Work:
        """Each trigger once."""
        return amb.Work(read=self.n_triggers)

    def redraw(self, key: amb.Key, generator: torch.Generator) -> amb.Key:
        return replace(key, tensors={**key.tensors, "secret": amb.draw_secret(generator)})

    def extract_on(self, suspect: SuspectView, key: amb.Key, images: torch.Tensor, ctx: amb.Context) -> amb.Evidence:
        from amb_spread.features_torch import extract_on

        return extract_on(self, suspect, key, images, ctx)

    def audit_key(self, key: amb.Key, unmarked: VisionModel | None = None) -> amb.KeyAudit:
        from amb_spread.features_torch import audit_key

        return audit_key(self, key, unmarked)

    forgeries: ClassVar[Mapping[str, str]] = {
        "secret": "draw `budget` secrets and keep the one that reads best: carriers and messages follow from it and from what "
        "else is in the key, so nothing else can be chosen, and the best p is about 1 / budget",
    }

    def forge(self, model: VisionModel, what: str, budget: int, ctx: amb.Context) -> amb.Key:
        from amb_spread.features_torch import forge

        amb.require_forgery(self, what)
        return forge(self, model, budget, ctx)

    def embed(self, owner: VisionModel, ctx: amb.Context) -> amb.Embedding:
        from amb_spread.features_torch import embed

        return embed(self, owner, ctx)

    def extract(self, suspect: SuspectView, key: amb.Key, ctx: amb.Context) -> amb.Evidence:
        from amb_spread.features_torch import extract

        return extract(self, suspect, key)
