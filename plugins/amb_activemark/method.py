"""ActiveMark's parameters, presets and verbs; the torch work is in `training` and `reading`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

import amb

if TYPE_CHECKING:
    import torch

    from amb import SuspectView, VisionModel


class ActiveMark(amb.Method):
    """Watermark a vision transformer through the hidden representation of trigger images.

    An encoder writes a message into the representation of each trigger image at one block, the later blocks are
    fine-tuned, and a decoder reads the message from the output. The deployed model is the fine-tuned one without
    the encoder. To verify, the owner's encoder injects the message into the suspect at that block and the decoder
    reads it at the end.

    With one fixed message per trigger the decoder can learn the messages by heart and recognise the image instead of
    reading what was injected. The report tells: with the messages swapped among the triggers, `swapped_reads_injected`
    is the share of bits read that are the injected ones, `swapped_reads_own` of those that belong to the image; 0.5 is
    chance. A mark that is recited also reads on unmarked siblings, so read them in the table.
    """

    name: ClassVar[str] = "activemark"
    source: ClassVar[str] = "Chistyakova and Pautov 2025, arXiv 2510.04966; the code form follows the authors' code"
    access: ClassVar[amb.Access] = "weights"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "activemark-code": {
            "carrier": "token",
            "index": 46,
            "decoder_reads": "carrier",
            "freeze_last": True,
            "loss": "mse",
            "messages": "fresh",
            "fidelity": "marked",
            "steps": 2500,
            "batch": 16,
            "lr": 1e-5,
            "coder_lr": 1e-4,
            "schedule": "constant",
            "lam": 1.0,
            "n_triggers": 1000,
            "select": True,
        },
        "activemark-contrastive": {"contrast": 1.0, "prune_noise": 0.6, "steps": 600, "lam": 3.0},
    }

    block: Literal["auto"] | Annotated[int, Field(ge=0)] = "auto"
    """Last frozen block, counted from 0; `auto` takes the expressive block of the activation profile."""
    fallback: float = Field(0.5, gt=0, lt=1)
    """Where `auto` finds no expressive block: share of the depth that stays frozen."""
    n_bits: int = Field(32, ge=1, le=4096)
    """Bits in a message."""
    n_triggers: int = Field(128, ge=2)
    """Trigger images, each with a message of its own."""
    lam: float = Field(5.0, gt=0)
    """Weight of the message in the loss (lambda of eq. 2)."""
    lr: float = Field(1e-3, gt=0)
    """Learning rate of the fine-tuned blocks (AdamW)."""
    coder_lr: float = Field(3e-3, gt=0)
    """Learning rate of encoder and decoder (AdamW)."""
    schedule: Literal["linear", "constant"] = "linear"
    """Learning rates over the steps: linear to a fiftieth, or constant."""
    steps: int = Field(400, ge=1)
    """Training steps."""
    batch: int = Field(32, ge=1)
    """Images per step and path."""
    n_images: int = Field(1024, ge=1)
    """The owner's images on which the clean representation is kept."""
    carrier: Literal["channel", "token"] = "channel"
    """What is replaced: one feature channel of every token, or one whole token."""
    index: int = Field(0, ge=0)
    """Which channel or token (CLS is token 0, registers are not counted)."""
    decoder_reads: Literal["embedding", "carrier"] = "embedding"
    """The output embedding, or the carrier as it enters the last block."""
    freeze_last: bool = False
    """Keep the last block and the final norm frozen too."""
    loss: Literal["norm", "mse"] = "norm"
    """`norm`: L2 of the representation and L1 of the message (eq. 2); `mse`: mean squares of both."""
    warm_up: float = Field(0.5, ge=0, le=1)
    """With `loss=norm`: share of the steps in which the message term is squared. L1 alone has no gradient at a bit
    that is wrong and saturated: 5 of 32 bits stayed wrong where squares left 0.2."""
    messages: Literal["fixed", "fresh"] = "fixed"
    """Train on the triggers' own messages, or on new random messages for the owner's images at every step."""
    fidelity: Literal["marked", "clean", "both"] = "both"
    """On which path the representation must stay the original's: with the encoder, without it, or both."""
    contrast: float = Field(0.0, ge=0)
    """Weight, relative to the message, of a term that makes the decoder answer 1/2 on the unmarked model; ours."""
    prune_noise: float = Field(0.0, ge=0, lt=1)
    """Most of the fine-tuned weights that a training step zeroes: a random share up to this; ours, not the paper's."""
    select: bool = False
    """Keep only triggers on which every bit decodes; the rate before selection is reported beside."""
    cache_mib: int = Field(2048, ge=0)
    """Memory in MiB for the cached representations of one set of images; a larger set goes to memory-mapped files."""

    @property
    def default_tau(self) -> int:
        """5 of 32 bits, as in the paper; the same share of other lengths."""
        return self.n_bits * 5 // 32

    def work(self, facts: amb.ModelFacts) -> amb.Work:
        """The caches through the whole model; each step through the later blocks, with a message and, where that counts, without."""
        block = round(self.fallback * facts.n_blocks) - 1 if self.block == "auto" else self.block
        later = (facts.n_blocks - 1 - block) / max(1, facts.n_blocks)
        paths = {"marked": 1, "clean": 2, "both": 2}[self.fidelity] + (self.contrast > 0)
        read = amb.Work(read=self.n_images + 3 * self.n_triggers + (100 if self.block == "auto" else 0))
        return read + amb.Work(trained=self.steps * self.batch * paths * later)

    def query_work(self) -> amb.Work:
        """Each trigger once."""
        return amb.Work(read=self.n_triggers)

    def skip(self, facts: amb.ModelFacts, key: amb.Key | None = None) -> str | None:
        """Needs transformer blocks; as a suspect, also the sizes that the key's networks were made for."""
        if facts.n_blocks < 2 + self.freeze_last:
            return f"{facts.ref} has no transformer blocks to write a message between"
        if key is not None:
            return _explain_misfit(facts, key)
        if self.block != "auto" and self.block >= facts.n_blocks - 1 - self.freeze_last:
            return f"block {self.block} of {facts.ref} is not followed by a block to train (it has {facts.n_blocks})"
        size = facts.dim if self.carrier == "channel" else facts.n_tokens
        return None if self.index < size else f"{facts.ref} has no {self.carrier} {self.index} (it has {size})"

    forgeries: ClassVar[Mapping[str, str]] = {
        "messages": "keep the owner's triggers and coders, choose each message as the best of `budget` tries, which "
        "follow what the decoder reads",
        "triggers": "keep the owner's messages and coders, move each trigger `budget` signed-gradient steps of 2/255, with "
        "no bound but [0, 1]",
        "decoder": "train an encoder and a decoder of one's own for `budget` steps while the model stays frozen",
    }
    has_agreement: ClassVar[bool] = True

    def embed(self, owner: VisionModel, ctx: amb.Context) -> amb.Embedding:
        from amb_activemark.training import embed

        return embed(self, owner, ctx)

    def extract(self, suspect: SuspectView, key: amb.Key, ctx: amb.Context) -> amb.Evidence:
        from amb_activemark.reading import extract

        return extract(suspect, key)

    def forge(self, model: VisionModel, what: str, budget: int, ctx: amb.Context) -> amb.Key:
        from amb_activemark.forging import FORGERS

        amb.require_forgery(self, what)
        return FORGERS[what](self, model, budget, ctx)

    def agreement(self, model: VisionModel, key: amb.Key, n: int, drawn: torch.Generator) -> torch.Tensor:
        from amb_activemark.reading import agreement

        return agreement(model, key, n, drawn)


def _explain_misfit(facts: amb.ModelFacts, key: amb.Key) -> str | None:
    for what, has in (("n_tokens", facts.n_tokens), ("dim", facts.dim), ("n_features", facts.n_features)):
        if has != key.facts[what]:
            return f"the key reads models with {what} = {key.facts[what]}, {facts.ref} has {has}"
    if key.facts["block"] >= facts.n_blocks - 1:
        return f"the key reads at block {key.facts['block']}, {facts.ref} has {facts.n_blocks} blocks"
    return None
