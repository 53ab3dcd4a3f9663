"""RandMark's parameters, presets and verbs; the torch work is in `training`, `reading` and `forging`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

import amb

if TYPE_CHECKING:
    import torch

    from amb import SuspectView, VisionModel


class RandMark(amb.Method):
    """Watermark an encoder so that random messages, written into trigger images, are read from its embeddings under noise.

    An encoder network E writes a message m of random bits into each trigger image x, the model f~ embeds it, a decoder
    network reads m'. All three are trained on |f(x) - f~(x)|_2 + (lambda / K) sum_j |m - m'_j|_2, where m'_j is read of the
    j-th of K copies with Gaussian noise on the pixels. A trigger is detected where at most tau of its bits are wrong.

    We have the paper's abstract, its loss, its 32 bits, 1,000 triggers and tau = 5, and no code. Where these are silent we chose: E
    sees the image at 8 x 8 pixels beside the message, and adds a bounded pattern of 8 x 8 to the image, for
    the paper writes into an internal representation, and what an image puts into a transformer's first is linear in its
    pixels; so embeddings are all that is asked of a suspect. E and the decoder have one hidden layer. The first term is taken over the owner's images
    and the plain triggers, with the patch tokens held beside. All blocks are trained. K, lambda and the noise are ours.
    The key has the written images, of 8 bits a value: E itself is not needed to read them. `randmark-paper` has the paper's triggers.

    With one message per trigger the decoder can recite what belongs to the image instead of reading what was written. The
    report tells: with the messages swapped among the triggers, `swapped_reads_written` is the share of bits read that were
    written, `swapped_reads_own` of those that belong to the image; 0.5 is chance.
    """

    name: ClassVar[str] = "randmark"
    source: ClassVar[str] = (
        "Chistyakova and Pautov 2026, arXiv 2603.10695: its loss; networks, noise and weights are ours"
    )
    access: ClassVar[amb.Access] = "features"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"randmark-paper": {"n_triggers": 1000}}

    n_bits: int = Field(32, ge=1, le=4096)
    """Bits in a message."""
    n_triggers: int = Field(128, ge=2)
    """Trigger images, each with a message of its own; 1,000 in the paper."""
    n_noised: int = Field(2, ge=1, le=64)
    """K: noisy copies of each trigger in a step."""
    noise: float = Field(0.05, ge=0, le=1)
    """Standard deviation of the noise on the pixels, whose values lie in [0, 1]."""
    lam: float = Field(10.0, gt=0)
    """Weight of the message in the loss (lambda)."""
    amplitude: float = Field(0.2, gt=0, le=1)
    """Most that the encoder network changes a pixel."""
    lr: float = Field(1e-3, gt=0)
    """Largest learning rate of the model (AdamW, one cycle)."""
    coder_lr: float = Field(1e-2, gt=0)
    """Largest learning rate of encoder and decoder network."""
    steps: int = Field(200, ge=1)
    """Training steps."""
    batch: int = Field(16, ge=1)
    """Triggers of a step, and as many of the owner's images."""
    n_images: int = Field(512, ge=1)
    """The owner's images on which embeddings are held; they are kept in memory, 8 bits a value."""

    @property
    def default_tau(self) -> int:
        """5 of 32 bits, as in the paper; the same share of other lengths."""
        return self.n_bits * 5 // 32

    def skip(self, facts: amb.ModelFacts, key: amb.Key | None = None) -> str | None:
        """Any encoder will do; as a suspect, one whose embedding is as long as the owner's."""
        if key is None or facts.n_features == key.facts["n_features"]:
            return None
        return f"the key's decoder reads {key.facts['n_features']} features, {facts.ref} has {facts.n_features}"

    def work(self, facts: amb.ModelFacts) -> amb.Work:
        """Every step holds two plain images a trigger, as the unmarked model embeds them, and reads the noisy copies."""
        n = self.steps * self.batch
        return amb.Work(read=2 * n + 2 * self.n_triggers, trained=(2 + self.n_noised) * n)

    def query_work(self) -> amb.Work:
        """Each trigger once."""
        return amb.Work(read=self.n_triggers)

    forgeries: ClassVar[Mapping[str, str]] = {
        "messages": "keep the owner's triggers and decoder, and register as messages what it reads on the innocent model; one "
        "query an image, whatever the budget",
        "triggers": "keep the owner's messages and decoder, and move each trigger `budget` signed-gradient steps of 2/255",
        "decoder": "train an encoder and a decoder network of one's own for `budget` steps while the model stays frozen",
    }
    has_agreement: ClassVar[bool] = True

    def embed(self, owner: VisionModel, ctx: amb.Context) -> amb.Embedding:
        from amb_randmark.training import embed

        return embed(self, owner, ctx)

    def extract(self, suspect: SuspectView, key: amb.Key, ctx: amb.Context) -> amb.Evidence:
        from amb_randmark.reading import extract

        return extract(suspect, key)

    def forge(self, model: VisionModel, what: str, budget: int, ctx: amb.Context) -> amb.Key:
        from amb_randmark.forging import FORGERS

        amb.require_forgery(self, what)
        return FORGERS[what](self, model, budget, ctx)

    def agreement(self, model: VisionModel, key: amb.Key, n: int, drawn: torch.Generator) -> torch.Tensor:
        from amb_randmark.reading import agreement

        return agreement(model, key, n, drawn)
