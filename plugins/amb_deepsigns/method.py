"""DeepSigns' parameters, presets and verbs; the torch work is in `activations`, the key's derivation in `secret`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

import amb

if TYPE_CHECKING:
    import torch

    from amb import SuspectView, VisionModel


class DeepSigns(amb.Method):
    """Move the mean embedding of each class until a secret projection of it has a random message as its signs.

    Trains encoder and head on cross-entropy + gamma1 |f(x) - mu_y|^2 + gamma2 BCE(sigmoid(mu A), b), where f is the output
    embedding, mu_y the centre of class y, which is trained too, A a secret standard normal matrix and b random bits, one
    message a class. A suspect is read on the key's own images: bit = sign of (mean embedding of a class's images) A.

    The null is exact: A, and from it apart b, are drawn from the secret, so whatever a suspect made without it answers, and
    whatever A is, its bits match independent fair ones by chance. A bit whose projection is 0 counts as wrong. Were b fixed, a shared
    A would make the classes alike and no such statement would hold.

    Adapted: the paper marks a hidden fully connected layer of a small classifier, after its ReLU; here the output embedding of an
    encoder, which is what a suspect shows. It trains classifiers; here an encoder without a head for the owner's classes
    gets one for the training, and it is thrown away. Its key images are 1 % of the training images; here trigger images,
    which are not trained on. The paper also drives unmarked classes' centres away, its demonstration does not, nor do we. |.|^2
    sums over features and is averaged over images, BCE sums over bits and is averaged over classes: a wider embedding weighs
    more. The paper's own rule, a bit error rate of 0, stands in the facts of the evidence.
    """

    name: ClassVar[str] = "deepsigns"
    source: ClassVar[str] = (
        "Rouhani, Chen and Koushanfar, ASPLOS 2019, arXiv 1804.00750: activations of hidden layers; parameters of its demo. "
        "deepsigns-wrt: the toolbox of Lukas et al. 2022, arXiv 2108.04974"
    )
    access: ClassVar[amb.Access] = "features"
    null: ClassVar[amb.Null] = "exact"
    claims: ClassVar[amb.ClaimKind] = "marked release"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "deepsigns-paper": {"gamma1": 0.01, "gamma2": 0.01},
        "deepsigns-wrt": {"gamma1": 0.01, "gamma2": 1.0, "n_bits": 100},
    }

    n_classes: int = Field(10, ge=1)
    """Classes that carry a message, the first so many; each is a trial."""
    n_bits: int = Field(16, ge=1, le=4096)
    """Bits of a message: no more than the embedding has features."""
    n_images: int = Field(16, ge=1)
    """Key images of each class."""
    gamma1: float = Field(0.1, ge=0)
    """Weight of the distance of an embedding to its class's centre. The demo has .01, over many epochs from scratch; in a few
    hundred steps from a trained model the embeddings did not follow their centres then (on `tiny` 60 of 160 bits stayed wrong)."""
    gamma2: float = Field(0.1, gt=0)
    """Weight of the bits. The demo has .01."""
    steps: int = Field(400, ge=1)
    """Steps of AdamW, one cycle of the learning rate."""
    batch: int = Field(32, ge=2)
    """Images of a step."""
    lr: float = Field(1e-3, gt=0)
    """Largest learning rate of the cycle, for encoder and head."""
    centre_lr: float = Field(0.1, gt=0)
    """The same for the centres, which start at the unmarked means and have further to go. The paper has one rate for all."""

    @property
    def default_tau(self) -> int:
        """About a sixth of the bits: 2 of 16, as ActiveMark has 5 of 32. The paper asks for 0."""
        return 5 * self.n_bits // 32

    def skip(self, facts: amb.ModelFacts, key: amb.Key | None = None) -> str | None:
        """As an owner, a feature for each bit at least; as a suspect, embeddings of the owner's width."""
        if key is None:
            few = facts.n_features < self.n_bits
            return f"{facts.ref} has {facts.n_features} features, too few for {self.n_bits} bits" if few else None
        if facts.n_features != key.facts["n_features"]:
            return f"the key projects {key.facts['n_features']} features, {facts.ref} has {facts.n_features}"
        return None

    forgeries: ClassVar[Mapping[str, str]] = {
        "secret": "draw `budget` secrets and keep the one that reads best: projection and messages follow from it and from the "
        "images, so nothing else can be chosen, and the best p is about 1 / budget",
    }
    has_agreement: ClassVar[bool] = True

    def work(self, facts: amb.ModelFacts) -> amb.Work:
        """Every step's images, and the key's before and after."""
        return amb.Work(read=2 * self.n_classes * self.n_images, trained=self.steps * self.batch)

    def query_work(self) -> amb.Work:
        """Each key image once."""
        return amb.Work(read=self.n_classes * self.n_images)

    def redraw(self, key: amb.Key, generator: torch.Generator) -> amb.Key:
        return replace(key, tensors={**key.tensors, "secret": amb.draw_secret(generator)})

    def audit_key(self, key: amb.Key, unmarked: VisionModel | None = None) -> amb.KeyAudit:
        from amb_deepsigns.activations import audit_key

        return audit_key(self, key, unmarked)

    def embed(self, owner: VisionModel, ctx: amb.Context) -> amb.Embedding:
        from amb_deepsigns.activations import embed

        return embed(self, owner, ctx)

    def extract(self, suspect: SuspectView, key: amb.Key, ctx: amb.Context) -> amb.Evidence:
        from amb_deepsigns.activations import extract

        return extract(self, suspect, key)

    def forge(self, model: VisionModel, what: str, budget: int, ctx: amb.Context) -> amb.Key:
        from amb_deepsigns.activations import forge

        amb.require_forgery(self, what)
        return forge(self, model, budget, ctx)

    def agreement(self, model: VisionModel, key: amb.Key, n: int, drawn: torch.Generator) -> torch.Tensor:
        from amb_deepsigns.activations import agreement

        return agreement(self, model, key, n, drawn)
