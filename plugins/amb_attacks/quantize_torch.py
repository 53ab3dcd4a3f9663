"""The arithmetic behind `quantize` and `quantize-int8`: rounded weights, and linear layers that multiply in int8."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import amb
from amb import hush_torchao

if TYPE_CHECKING:
    from torchao.quantization import Int8Tensor

hush_torchao()
FORMATS: Final = {"fp16": torch.float16, "bf16": torch.bfloat16}
_PAST_LAYERS: Final = ("timm.models.beit", "timm.models.eva")
_TINY: Final = torch.finfo(torch.float32).tiny  # the scale of a channel of zeros, which must not be 0


def round_to_format(model: amb.VisionModel, form: Literal["fp16", "bf16"]) -> None:
    """Round every floating-point tensor of the model, in place; what is too large for the format becomes infinite."""
    for tensor in model.state_dict().values():
        if tensor.is_floating_point():
            tensor.copy_(tensor.to(FORMATS[form]))


def round_to_bits(model: amb.VisionModel, bits: int) -> None:
    """Round the matrices of the encoder, in place: symmetric around 0, a scale for each output channel."""
    top = 2 ** (bits - 1) - 1
    for matrix in model.matrices():
        weight, axis = matrix.weight, matrix.output_axis
        scale = (weight.abs().transpose(0, axis).flatten(1).amax(dim=1) / top).clamp(min=_TINY)
        zero = torch.zeros_like(scale, dtype=torch.int32)
        weight.copy_(torch.fake_quantize_per_channel_affine(weight, scale, zero, axis, -top, top))


def is_plain_linear(module: nn.Module) -> bool:
    """Whether torchao, too, would take this layer: torch reads the weight of an attention's last layer past its forward."""
    kinds = nn.modules.linear.NonDynamicallyQuantizableLinear
    return isinstance(module, nn.Linear) and not isinstance(module, kinds)


def reads_past_layers(backbone: nn.Module) -> bool:
    """Whether its attention multiplies with the weight of a layer instead of calling it, as timm's BEiT and EVA do."""
    return any(type(module).__module__ in _PAST_LAYERS and hasattr(module, "qkv") for module in backbone.modules())


def has_torch_attention(backbone: nn.Module) -> bool:
    """Whether there is attention of torch's own form, whose four matrices no int8 layer can take the place of."""
    return any(isinstance(module, nn.MultiheadAttention) for module in backbone.modules())


def int8_share(model: amb.VisionModel) -> float:
    """Which share of the weights in the encoder's matrices is int8."""
    n_int8 = sum(each.codes.numel() for each in model.backbone.modules() if isinstance(each, Int8Linear))
    return n_int8 / (n_int8 + sum(matrix.weight.numel() for matrix in model.matrices()))


def to_int8(backbone: nn.Module) -> None:
    """Put an int8 layer in the place of every linear one."""
    for parent in list(backbone.modules()):
        for name, child in list(parent.named_children()):
            if is_plain_linear(child):
                setattr(parent, name, Int8Linear(cast(nn.Linear, child)))


class Int8Linear(nn.Module):
    """A linear layer with int8 weights that quantises its input token by token; the product is torchao's own."""

    codes: Tensor  # (out, in) int8
    scale: Tensor  # (out, 1)

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        from torchao.quantization import Int8Tensor, PerRow

        self.in_features, self.out_features = layer.in_features, layer.out_features
        rounded = Int8Tensor.from_hp(layer.weight.detach(), PerRow())
        self.register_buffer("codes", rounded.qdata)
        self.register_buffer("scale", rounded.scale)
        self.bias = layer.bias

    @property
    def weight(self) -> Int8Tensor:
        """As torchao's tensor, for code that reads a layer's weight and multiplies by itself."""
        return _make_torchao_tensor(self.codes, self.scale)

    def forward(self, x: Tensor) -> Tensor:
        """The product with the weights, and the bias, for inputs (..., in)."""
        product = cast(Tensor, _Int8Product.apply(x, self.codes, self.scale))
        return product if self.bias is None else product + self.bias


class _Int8Product(torch.autograd.Function):
    """x W^T in int8. Its gradient is that of the product in floating point: rounding itself has none."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, codes: Tensor, scale: Tensor) -> Tensor:
        ctx.save_for_backward(codes, scale)
        return F.linear(x, _make_torchao_tensor(codes, scale))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        codes, scale = ctx.saved_tensors
        return grads[0] @ (codes.to(grads[0].dtype) * scale), None, None


def _make_torchao_tensor(codes: Tensor, scale: Tensor) -> Int8Tensor:
    from torchao.quantization import Int8Tensor, PerRow
    from torchao.quantization.quantize_.workflows import QuantizeTensorToInt8Kwargs

    by_token = QuantizeTensorToInt8Kwargs(granularity=PerRow())
    return Int8Tensor(codes, scale, [1, codes.shape[1]], scale.dtype, act_quant_kwargs=by_token)
