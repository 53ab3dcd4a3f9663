"""`quantize` and `quantize-int8`: fewer bits for each weight, without retraining; parameters, presets, and the edit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

import amb

if TYPE_CHECKING:
    from amb import VisionModel


class Quantize(amb.Attack):
    """Round the weights to fewer bits, without retraining; arithmetic stays in 32-bit floating point.

    `fp16` and `bf16` round every weight of the encoder and its heads to that format. `kbit` rounds every matrix of the
    encoder, query, key and value of any library's attention among them, to whole multiples of a scale, from
    -(2^(bits-1) - 1) to 2^(bits-1) - 1 times it. Each output channel has a scale of its own, so that its largest weight
    stays as it was.
    """

    name: ClassVar[str] = "quantize"
    thief: ClassVar[amb.Thief] = "quantizes it or adds noise"
    source: ClassVar[str] = "Krishnamoorthi 2018, sections 2.2 and 2.6 (kbit: symmetric, per channel, weights only)"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "quantize-fp16": {"form": "fp16"},
        "quantize-bf16": {"form": "bf16"},
        **{f"quantize{bits}": {"form": "kbit", "bits": bits} for bits in (8, 6, 4, 3)},
    }

    form: Literal["fp16", "bf16", "kbit"] = "kbit"
    """What a weight is rounded to: half precision, bfloat16, or `bits` bits."""
    bits: int = Field(8, ge=2, le=8)
    """Bits of a weight, for `kbit`."""

    def apply(self, model: VisionModel, ctx: amb.Context) -> VisionModel:
        from amb_attacks.quantize_torch import round_to_bits, round_to_format

        quantized = model.copy(f"{model.ref}+{self.canonical()}")
        if self.form == "kbit":
            round_to_bits(quantized, self.bits)
        else:
            round_to_format(quantized, self.form)
        return quantized


class QuantizeInt8(amb.Attack):
    """Store the linear layers of the encoder as int8 and multiply in int8, without retraining (dynamic quantisation).

    Weights have one scale for each output channel, activations one for each token, found as they come. Biases, norms,
    convolutions and heads stay in floating point, and so does the attention itself. The int8 weights cannot be trained:
    fine-tuning afterwards changes everything else. Gradients pass through as if the layers were not rounded.

    torch's own attention, of which open_clip's towers are built, multiplies with its four matrices past any layer, as
    torchao leaves it too: there they stay in floating point and only the MLP is int8. The notes then say which share of
    the encoder's matrices is int8 (`int8_share`).
    """

    name: ClassVar[str] = "quantize-int8"
    thief: ClassVar[amb.Thief] = "quantizes it or adds noise"
    source: ClassVar[str] = "torchao, Int8DynamicActivationInt8WeightConfig; Dettmers et al. 2022, section 3.1"
    requires: ClassVar[tuple[str, ...]] = ("torchao",)

    def skip(self, model: VisionModel) -> str | None:
        from amb_attacks.quantize_torch import is_plain_linear, reads_past_layers

        if reads_past_layers(model.backbone):
            return f"{model.ref} reads the weights of its attention past their layers, so these cannot be int8"
        if not any(is_plain_linear(module) for module in model.backbone.modules()):
            return f"{model.ref} has no linear layer in floating point"
        return None

    def apply(self, model: VisionModel, ctx: amb.Context) -> VisionModel:
        from amb_attacks.quantize_torch import has_torch_attention, int8_share

        quantized = amb.edited(model, Int8Layers(), f"{model.ref}+{self.canonical()}")
        if has_torch_attention(quantized.backbone):
            ctx.note(int8_share=round(int8_share(quantized), 4))
        return quantized


class Int8Layers(amb.Edit):
    """The linear layers of the encoder hold int8 weights and scales, and multiply in int8."""

    name: ClassVar[str] = "int8-layers"

    def apply(self, model: VisionModel) -> None:
        from amb_attacks.quantize_torch import to_int8

        to_int8(model.backbone)
