"""NeuralMark's parameters and verbs; the torch work is in `marking`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

import amb

if TYPE_CHECKING:
    import torch

    from amb import SuspectView, VisionModel


class NeuralMark(amb.Method):
    """Write the hash of a secret matrix into those weights of one layer that the hash itself selects.

    K is a matrix of standard normal draws and b = SHAKE-256(K), the bits. The layer's weights lie in a row; four times the
    row is kept only where b, repeated along it, is 1. What is left is averaged in as many equal parts as K has rows: w.
    The encoder trains on its task plus lambda times the mean over bits of BCE(sigmoid(w K)_j, b_j); a suspect's bits are the
    signs of w K. Weights are read as they lie: another order of neurons is another row.

    Adapted, since the paper trains classifiers from nothing for 200 epochs. **Task**: an encoder has no labels, so its
    function is held: output tokens and embedding of the unmarked model on the owner's images. **Training**: the trained
    model is trained on, with the paper's SGD at 0.01, for steps of ours. **Layer**: the paper marks one, which the owner
    chooses; here the secret does, unless `layer` names one. **Row**: the paper does not say in which order a matrix is laid out;
    here, as it is stored, output by output. Nor does it say what happens to weights left over when the parts are made;
    here the parts may share one at their ends. **Key**: K is not stored but follows from the secret, and b and the layer with
    it. A K that a claimant brings is refused: w depends on b, so that who may choose K can choose one that tells b from w.

    On any model made without the secret each bit is a fair coin: given b and the weights, the columns of K are symmetric,
    if SHAKE-256 is as good as a random oracle. A layer that is missing, or all zeros, has every bit wrong. The paper claims a
    model from 88.28 % of the bits, 226 of 256, which coins reach once in 2^126; tau is that. A p-value of 1e-6 takes 167.
    """

    name: ClassVar[str] = "neuralmark"
    source: ClassVar[str] = "Hashed watermark as a filter: NeuralMark, 2025, arXiv 2507.11137"
    access: ClassVar[amb.Access] = "weights"
    null: ClassVar[amb.Null] = "exact"
    claims: ClassVar[amb.ClaimKind] = "marked release"

    n_bits: int = Field(256, ge=2, le=4096)
    """Bits of the one message."""
    n_parts: int = Field(512, ge=1, le=65536)
    """Parts in which the selected weights are averaged; rows of K."""
    rounds: int = Field(4, ge=0, le=16)
    """How often weights are selected; each time about half of them stay."""
    lam: float = Field(1.0, gt=0)
    """Weight of the mark, averaged over its bits, beside the task (lambda)."""
    layer: str = "auto"
    """Name of the matrix that carries the mark, as in the encoder's `state_dict`; `auto` lets the secret choose among those
    that keep at least twice as many weights as there are parts, on average."""
    steps: int = Field(250, ge=1)
    """Steps of SGD with momentum 0.9."""
    batch: int = Field(8, ge=1)
    """Images of a step."""
    lr: float = Field(0.01, gt=0)
    """Learning rate, linear to a fiftieth."""
    n_images: int = Field(2048, ge=1)
    """The owner's images on which the encoder's function is held."""

    @property
    def default_tau(self) -> int:
        """The paper's boundary, 88.28 % of the bits right: 30 of 256 wrong."""
        return 30 * self.n_bits // 256

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
        from amb_neuralmark.marking import audit_key

        return audit_key(self, key, unmarked)

    forgeries: ClassVar[Mapping[str, str]] = {
        "secret": "draw `budget` secrets and keep the one that reads best: K, its hash and the layer follow from it, so nothing "
        "else can be chosen, and the best p is about 1 / budget",
    }

    def forge(self, model: VisionModel, what: str, budget: int, ctx: amb.Context) -> amb.Key:
        from amb_neuralmark.marking import forge

        amb.require_forgery(self, what)
        return forge(self, model, budget, ctx)

    has_agreement: ClassVar[bool] = True

    def agreement(self, model: VisionModel, key: amb.Key, n: int, drawn: torch.Generator) -> torch.Tensor:
        from amb_neuralmark.marking import agreement

        return agreement(self, model, key)

    def embed(self, owner: VisionModel, ctx: amb.Context) -> amb.Embedding:
        from amb_neuralmark.marking import embed

        return embed(self, owner, ctx)

    def extract(self, suspect: SuspectView, key: amb.Key, ctx: amb.Context) -> amb.Evidence:
        from amb_neuralmark.marking import extract

        return extract(self, suspect.model, key)
