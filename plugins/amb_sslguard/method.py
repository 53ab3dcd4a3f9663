"""SSLGuard's parameters, presets and verbs; the torch work is in `training`, `reading` and `forging`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

import amb

if TYPE_CHECKING:
    import torch

    from amb import SuspectView, VisionModel


class SSLGuard(amb.Method):
    """Watermark an encoder so that stamped images decode to a secret vector, on a student of it too if the shadow does its work.

    An image is stamped by x' = clip((1 - M) x + M T): a random mask M covers a share of its values, the trigger T is
    learnt. A decoder maps the embedding to a vector; a stamped image is detected where the cosine of that vector with the
    secret, drawn from N(0, I), exceeds the threshold. The paper's watermark rate is the share of such images, which is the
    detection rate here: a trial is an image, its one symbol whether the cosine is high enough.

    Every step first trains a shadow encoder to embed clean images as the marked one does, which is what a thief's student
    does, then marked encoder, decoder and trigger together: clean embeddings stay (L0), stamped ones decode to the secret
    on the marked encoder (L2, L3) and on the shadow (L3), and everything else to a cosine of 0, squared over the
    batch's mean: clean images on all three encoders (L1, L4, L5), stamped ones on the unmarked encoder (L4). The decoder is trained, so
    no null is exact and a claim rests on the rank among sources of innocent models.

    Adapted: the paper marks ResNet-50s of 2,048 features (SimCLR, MoCo v2, BYOL); here the decoder takes as many features as
    there are. The paper trains 50 epochs with SGD (`sslguard-paper` has its rates); here AdamW at larger rates makes up for fewer steps.
    The authors' code takes batches of two, starts the shadow from public ImageNet weights, moves decoder and trigger ahead of the encoder,
    and reads the mark on the images on which it was trained; here the shadow has the owner's architecture and fresh
    weights, the three move at once, clean and stamped images of a step are the same, output tokens are held beside the
    embedding, and the key's images are trigger images that no training saw. A suspect's embedding must be as long as the owner's.
    """

    name: ClassVar[str] = "sslguard"
    source: ClassVar[str] = (
        "Cong, He and Zhang, CCS 2022, arXiv 2201.11692; details it leaves open follow the authors' code"
    )
    access: ClassVar[amb.Access] = "features"
    claims: ClassVar[amb.ClaimKind] = "marked release"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "sslguard-paper": {
            "optimizer": "sgd",
            "lr": 1e-5,
            "shadow_lr": 1e-2,
            "decoder_lr": 1e-3,
            "trigger_lr": 1e-3,
            "epochs": 50,
            "batch": 2,
            "hold_tokens": 0.0,
        },
    }

    threshold: float = Field(0.5, gt=-1, lt=1)
    """An image is detected where the cosine with the secret exceeds this."""
    mask_share: float = Field(0.35, gt=0, le=1)
    """Share of an image's values that the trigger replaces."""
    n_secret: int = Field(256, ge=2, le=65536)
    """Dimensions of the secret vector."""
    n_triggers: int = Field(256, ge=2)
    """Images on which the key is read."""
    n_images: int = Field(512, ge=2)
    """The owner's images to train on; they are kept in memory, 8 bits a value."""
    epochs: int = Field(4, ge=1)
    """Passes over them."""
    batch: int = Field(16, ge=1)
    """Images of a step."""
    optimizer: Literal["adamw", "sgd"] = "adamw"
    """AdamW without weight decay, its rates falling linearly to a fiftieth, or SGD with momentum 0.9, the trigger's without."""
    lr: float = Field(1e-3, gt=0)
    """Learning rate of the marked encoder."""
    shadow_lr: float = Field(2e-3, gt=0)
    """Learning rate of the shadow encoder."""
    decoder_lr: float = Field(3e-3, gt=0)
    """Learning rate of the decoder."""
    trigger_lr: float = Field(3e-2, gt=0)
    """Learning rate of the trigger, whose values lie in [0, 1]."""
    shadow: bool = True
    """Mark a shadow encoder too. Without it nothing prepares the mark for a student."""
    hold_tokens: float = Field(1.0, ge=0)
    """Weight of the output tokens in what stays as it was, which segmentation stands on; ours, 0 in the paper."""

    @property
    def default_tau(self) -> int:
        """0: a trial is one image, detected or not."""
        return 0

    def skip(self, facts: amb.ModelFacts, key: amb.Key | None = None) -> str | None:
        """Any encoder will do; as a suspect, one whose embedding is as long as the owner's."""
        if key is None or facts.n_features == key.facts["n_features"]:
            return None
        return f"the key's decoder reads {key.facts['n_features']} features, {facts.ref} has {facts.n_features}"

    def work(self, facts: amb.ModelFacts) -> amb.Work:
        """A step trains on clean and stamped images through the marked encoder, through the shadow and, stamped, the unmarked one."""
        n = self.epochs * self.n_images
        return amb.Work(read=self.n_images + self.shadow * 2 * n, trained=(3 + 2 * self.shadow) * n)

    def query_work(self) -> amb.Work:
        """Each image once."""
        return amb.Work(read=self.n_triggers)

    forgeries: ClassVar[Mapping[str, str]] = {
        "messages": "keep the owner's trigger and decoder, and register as the secret the mean of what they decode on the "
        "innocent model; one query an image, whatever the budget",
        "triggers": "keep the owner's decoder and secret, and train a trigger alone for `budget` steps while the model stays frozen",
        "decoder": "train a trigger and a decoder of one's own for `budget` steps while the model stays frozen",
    }
    has_agreement: ClassVar[bool] = True

    def embed(self, owner: VisionModel, ctx: amb.Context) -> amb.Embedding:
        from amb_sslguard.training import embed

        return embed(self, owner, ctx)

    def extract(self, suspect: SuspectView, key: amb.Key, ctx: amb.Context) -> amb.Evidence:
        from amb_sslguard.reading import extract

        return extract(self, suspect, key)

    def extract_on(self, suspect: SuspectView, key: amb.Key, images: torch.Tensor, ctx: amb.Context) -> amb.Evidence:
        from amb_sslguard.reading import extract_on

        return extract_on(self, suspect, key, images)

    def forge(self, model: VisionModel, what: str, budget: int, ctx: amb.Context) -> amb.Key:
        from amb_sslguard.forging import FORGERS

        amb.require_forgery(self, what)
        return FORGERS[what](self, model, budget, ctx)

    def agreement(self, model: VisionModel, key: amb.Key, n: int, drawn: torch.Generator) -> torch.Tensor:
        from amb_sslguard.reading import agreement

        return agreement(self, model, key, n, drawn)
