"""`lora`: fine-tune the stolen model by low-rank changes of its weights, then merge them; parameters and presets."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

import amb
from amb_attacks.training_parameters import TrainingParameters

if TYPE_CHECKING:
    from amb import VisionModel


class Lora(TrainingParameters):
    """Train low-rank changes of the blocks' matrices and a new classification head, then merge the changes.

    Built on peft. In every block the matrices of query, key and value and those of the MLP get a change of rank at
    most `rank`; where query, key and value are one matrix, they share it, and where they are no layer, as in open_clip,
    they stay. All else of the encoder is left bit for bit, and the merged model is of the same architecture as before.
    """

    name: ClassVar[str] = "lora"
    thief: ClassVar[amb.Thief] = "fine-tunes it"
    source: ClassVar[str] = "Hu et al. 2022, section 4.1, eq. 3; the MLP's matrices as well, as peft's users do"
    strength_parameter: ClassVar[str | None] = "epochs"
    requires: ClassVar[tuple[str, ...]] = ("peft",)

    leading: ClassVar[tuple[str, ...]] = ("rank", "alpha")

    rank: int = Field(8, ge=1)
    """Highest rank of the change of a matrix."""
    alpha: float = Field(16.0, gt=0)
    """The change is scaled by this over the rank."""
    lr: float = Field(5e-4, ge=0)
    """Learning rate of the low-rank changes."""
    weight_decay: float = Field(0.01, ge=0)
    """AdamW's weight decay, of the low-rank factors and the head."""

    def skip(self, model: VisionModel) -> str | None:
        from amb_attacks.lora_torch import to_adapt

        if not to_adapt(model):
            return f"{model.ref} has no transformer blocks with linear layers to adapt"
        return None

    def work(self, method: amb.Method, facts: amb.ModelFacts) -> amb.Work:
        """Every image in every epoch."""
        return amb.Work(trained=self.epochs * self.n_images)

    def apply(self, model: VisionModel, ctx: amb.Context) -> VisionModel:
        from amb_attacks.lora_torch import adapt

        return adapt(self, model, ctx)
