"""Uchida's parameters, presets and verbs; the torch work is in `marking`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

import amb

if TYPE_CHECKING:
    import torch

    from amb import SuspectView, VisionModel


class Uchida(amb.Method):
    """Write bits into the mean of one layer's filters: the signs of its secret projections.

    w is the mean of one weight over the layer's outputs, X a matrix of standard normal draws, b the bits: the encoder trains
    on its task plus lambda sum_j BCE(sigmoid(X w)_j, b_j), and a suspect's bits are the signs of X w. Outputs may be
    put in any order, inputs may not: the layer is read as it lies.

    Adapted, since the paper has convolutions and a task with labels. **Layer**: of a convolution (outputs, inputs, height,
    width) the mean over outputs is the paper's, of inputs x height x width values; of a linear layer (outputs, inputs) it is
    the same, of as many values as inputs, and there have to be as many as bits. The first matrix of a block's MLP
    carries the mark unless `layer` says otherwise. The second one, and the output of attention, write into the
    residual stream, where a vector that all outputs share is taken off by the next LayerNorm: a mark there changes
    nothing that the network computes, and subtracting the mean removes it at no cost. **Task**: an encoder has no labels, so its
    function is held: output tokens and embedding of the unmarked model on the owner's images. **Training**: the
    trained model is trained on, the paper's fine-tune-to-embed, with AdamW instead of SGD: the mean over hundreds of outputs divides
    the mark's gradient by their number. **Lambda**: 1 instead of 0.01, since the held function's loss is near 0 where the
    paper's cross-entropy is not: on `tiny/owner`, seed 0, 60 of 64 bits are right with 1, and with 0.01 42 (150 steps).

    X, b and the layer follow from the secret. On any model made without it each bit is a fair coin, for b is independent of
    all else; a layer that is missing, or all zeros, has every bit wrong. The authors' code marks with ones alone, and stores
    X: whoever may choose either after the fact claims any model with every bit right. The paper gives no threshold
    for its bit error rate; tau is the most wrong bits that coins reach once in a million times.
    """

    name: ClassVar[str] = "uchida"
    source: ClassVar[str] = "Uchida, Nagai, Sakazawa and Satoh 2017, ICMR, arXiv 1701.04082"
    access: ClassVar[amb.Access] = "weights"
    null: ClassVar[amb.Null] = "exact"
    claims: ClassVar[amb.ClaimKind] = "marked release"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "uchida-ones": {"bits": "ones"},
        "uchida-paper": {"lam": 0.01},
        "uchida-wrt": {"lam": 0.1, "n_bits": 30},
    }

    n_bits: int = Field(64, ge=1, le=4096)
    """T: bits of the one message, at most as many as the layer has values in its mean filter."""
    lam: float = Field(1.0, gt=0)
    """Weight of the mark, summed over its bits, beside the task (lambda). The paper has 0.01, the Watermark Robustness
    Toolbox 0.1."""
    bits: Literal["random", "ones"] = "random"
    """The message: drawn from the secret, or all ones as in the authors' code. Both are coins as long as X follows from
    the secret."""
    layer: str = "auto"
    """Name of the matrix that carries the mark, as in the encoder's `state_dict`; `auto` lets the secret choose among the
    first matrices of the blocks' MLPs, or among all matrices of a network without such blocks."""
    steps: int = Field(200, ge=1)
    """Steps of AdamW without weight decay."""
    batch: int = Field(8, ge=1)
    """Images of a step."""
    lr: float = Field(1e-3, gt=0)
    """Learning rate, linear to a fiftieth."""
    n_images: int = Field(2048, ge=1)
    """The owner's images on which the encoder's function is held."""

    @property
    def default_tau(self) -> int:
        """Most wrong bits that coins reach with probability 1e-6: 13 of 64. The paper gives none."""
        from scipy.stats import binom

        return max(0, int(binom.ppf(1e-6, self.n_bits, 0.5)) - 1)

    def skip(self, facts: amb.ModelFacts, key: amb.Key | None = None) -> str | None:
        """As a suspect, a network of as many blocks and as wide as the owner's."""
        if key is None or (facts.n_blocks, facts.dim) == (key.facts["n_blocks"], key.facts["dim"]):
            return None
        return f"{facts.ref} is of another form than the protected model, so it has no such layer"

    def work(self, facts: amb.ModelFacts) -> amb.Work:
        """Each step through the unmarked model and through the marked one."""
        n = self.steps * self.batch
        return amb.Work(read=n, trained=n)

    def redraw(self, key: amb.Key, generator: torch.Generator) -> amb.Key:
        return replace(key, tensors={"secret": amb.draw_secret(generator)})

    def audit_key(self, key: amb.Key, unmarked: VisionModel | None = None) -> amb.KeyAudit:
        from amb_uchida.marking import audit_key

        return audit_key(self, key, unmarked)

    forgeries: ClassVar[Mapping[str, str]] = {
        "secret": "draw `budget` secrets and keep the one that reads best: projection, message and layer follow from it, so "
        "nothing else can be chosen, and the best p is about 1 / budget",
    }

    def forge(self, model: VisionModel, what: str, budget: int, ctx: amb.Context) -> amb.Key:
        from amb_uchida.marking import forge

        amb.require_forgery(self, what)
        return forge(self, model, budget, ctx)

    has_agreement: ClassVar[bool] = True

    def agreement(self, model: VisionModel, key: amb.Key, n: int, drawn: torch.Generator) -> torch.Tensor:
        from amb_uchida.marking import agreement

        return agreement(self, model, key)

    def embed(self, owner: VisionModel, ctx: amb.Context) -> amb.Embedding:
        from amb_uchida.marking import embed

        return embed(self, owner, ctx)

    def extract(self, suspect: SuspectView, key: amb.Key, ctx: amb.Context) -> amb.Evidence:
        from amb_uchida.marking import extract

        return extract(self, suspect.model, key)
