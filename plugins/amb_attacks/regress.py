"""`adaptive-regress`: subtract from the embedding what an image's mid-level content explains of it; parameters and presets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

import amb

if TYPE_CHECKING:
    from amb import VisionModel


class AdaptiveRegress(amb.Attack):
    """Regress the embedding on functions of mid-level content, and train the later blocks to answer with what is left.

    For a thief who knows how `spread-features` marks, its parameters, and everything but the secret; he does not have the
    unmarked embeddings. The mark is a sum of functions of z, the whitened leading components of the mean patch token that
    leaves the last frozen block, so he fits the embedding, by ridge regression on his own images, to `n_functions` random
    sinusoids or to all products of up to three components of z, and subtracts `amount` of the fit. That takes away what
    the model itself owes to z as well; with `keep=linear` the part of it that is linear in z stays, and with it most of the
    mark. Then the blocks behind are trained to the new embedding, patch tokens held, as the method itself does it. Heads
    stay. The notes give the share of the embedding's variance that was subtracted.
    """

    name: ClassVar[str] = "adaptive-regress"
    thief: ClassVar[amb.Thief] = "edits its activations"
    source: ClassVar[str] = (
        "this project; after the estimation attacks on spread spectrum, Kalker 1998 and Cayre, Fontaine and Furon 2005"
    )
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "adaptive-regress-curved": {"keep": "linear"},
        "adaptive-regress-products": {"functions": "products"},
    }
    strength_parameter: ClassVar[str | None] = "amount"

    functions: Literal["sinusoids", "products"] = "sinusoids"
    """What z is passed through: sinusoids of random directions and phases, or products of components."""
    keep: Literal["nothing", "linear"] = "nothing"
    """What of the fit is not subtracted."""
    amount: float = Field(1.0, ge=0, le=2)
    """Share of the fit that is subtracted."""
    n_functions: int = Field(256, ge=1, le=8192)
    """Random sinusoids."""
    frequency: float = Field(1.0, gt=0)
    """How fast they change, as in the method."""
    n_components: int = Field(8, ge=1, le=64)
    """Components of the mean patch token that z has, as in the method."""
    frozen: float = Field(1 / 3, gt=0, lt=1)
    """Share of the depth that stays as it is, as in the method."""
    ridge: float = Field(1e-2, gt=0)
    """Penalty on the coefficients, as a share of the functions' mean variance."""
    n_images: int = Field(2048, ge=2)
    """How many of the attacker's images to fit and to train on."""
    steps: int = Field(400, ge=1)
    """Steps of AdamW, one cycle of the learning rate."""
    batch: int = Field(64, ge=2)
    """Images of a step."""
    lr: float = Field(2e-3, gt=0)
    """Largest learning rate of the cycle."""

    @property
    def knows(self) -> amb.Knows:
        return "method"

    def skip(self, model: VisionModel) -> str | None:
        if model.n_blocks < 2:
            return f"{model.ref} has no transformer blocks behind whose first ones it could be trained"
        return None

    def work(self, method: amb.Method, facts: amb.ModelFacts) -> amb.Work:
        """The frozen part of every image once, the rest of it as often as it is trained on."""
        return amb.Work(read=self.n_images, trained=(1 - self.frozen) * self.steps * self.batch)

    def apply(self, model: VisionModel, ctx: amb.Context) -> VisionModel:
        from amb_attacks.regress_torch import regress

        return regress(self, model, ctx)
