"""Quantisation: what rounded weights are multiples of, and int8 layers against torchao's own and against whole numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import amb
from amb.plugin.manager import Manager
from amb.testing import toy_context, toy_model

IMAGES = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
TRANSFORMER = {"img_size": 16, "patch_size": 4, "embed_dim": 32, "depth": 2, "num_heads": 4, "reg_tokens": 2}


def transformer() -> amb.VisionModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = amb.build_model({"loader": "timm", "name": "vit_tiny_patch16_224", "options": TRANSFORMER})
    return model.eval()


def attacked(manager: Manager, spec: str, folder: Path, model: amb.VisionModel) -> amb.VisionModel:
    for attack in manager.registry.attack_chain(spec):
        model = attack.apply(model, toy_context(folder, roles=("attacker",)))
    return model


def matrices(model: amb.VisionModel) -> list[np.ndarray]:
    """Output channels x everything else, of linear and convolutional layers."""
    layers = [module for module in model.backbone.modules() if isinstance(module, nn.Linear | nn.Conv2d)]
    return [layer.weight.detach().flatten(1).double().numpy() for layer in layers]


@pytest.mark.parametrize("bits", [2, 3, 4, 6, 8])
def test_every_weight_goes_to_the_nearest_of_its_channels_levels(manager: Manager, tmp_path: Path, bits: int) -> None:
    source = transformer()
    quantized = attacked(manager, f"quantize:bits={bits}", tmp_path, source)
    top = 2 ** (bits - 1) - 1
    for before, after in zip(matrices(source), matrices(quantized), strict=True):
        for weights, rounded in zip(before, after, strict=True):
            levels = np.linspace(-np.abs(weights).max(), np.abs(weights).max(), 2 * top + 1)
            nearest = np.abs(weights[:, None] - levels).min(axis=1)
            np.testing.assert_allclose(np.abs(weights - rounded), nearest, atol=1e-6)
            assert len(np.unique(rounded)) <= 2 * top + 1


def test_bits_round_matrices_and_nothing_else(manager: Manager, tmp_path: Path) -> None:
    source = toy_model(n_classes=3)
    quantized = attacked(manager, "quantize3", tmp_path, source)
    changed = {
        name for name, tensor in source.state_dict().items() if not torch.equal(tensor, quantized.state_dict()[name])
    }
    per_block = ["self_attn.in_proj_weight", "self_attn.out_proj.weight", "linear1.weight", "linear2.weight"]
    layers = {f"backbone.layers.{block}.{name}" for block in range(4) for name in per_block}
    assert changed == {"backbone.patches.weight", *layers}


def test_a_channel_of_zeros_stays_zero(manager: Manager, tmp_path: Path) -> None:
    source = transformer()
    source.backbone.blocks[0].mlp.fc1.weight.data[3] = 0
    quantized = attacked(manager, "quantize4", tmp_path, source)
    assert torch.equal(quantized.backbone.blocks[0].mlp.fc1.weight[3], torch.zeros(32))


def test_half_precision_is_that_of_numpy_in_every_tensor(manager: Manager, tmp_path: Path) -> None:
    source = toy_model(n_classes=3)
    quantized = attacked(manager, "quantize-fp16", tmp_path, source)
    for name, tensor in source.state_dict().items():
        expected = tensor.numpy().astype(np.float16).astype(np.float32)
        np.testing.assert_array_equal(quantized.state_dict()[name].numpy(), expected)


def test_bfloat16_keeps_the_upper_half_of_the_bits(manager: Manager, tmp_path: Path) -> None:
    source = toy_model(n_classes=3)
    quantized = attacked(manager, "quantize-bf16", tmp_path, source)
    for name, tensor in source.state_dict().items():
        bits = tensor.numpy().reshape(-1).view(np.uint32).astype(np.uint64)
        upper = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16 << 16  # round to nearest, ties to even
        expected = upper.astype(np.uint32).view(np.float32)
        np.testing.assert_array_equal(quantized.state_dict()[name].numpy().reshape(-1), expected)


def test_int8_answers_as_torchao_does(manager: Manager, tmp_path: Path) -> None:
    from torchao.quantization import Int8DynamicActivationInt8WeightConfig, quantize_

    source = transformer()
    ours, theirs = attacked(manager, "quantize-int8", tmp_path, source), source.copy()
    quantize_(theirs.backbone, Int8DynamicActivationInt8WeightConfig(set_inductor_config=False))
    with torch.no_grad():
        torch.testing.assert_close(ours.tokens(IMAGES), theirs.tokens(IMAGES), rtol=1e-5, atol=1e-5)
        assert not torch.allclose(ours.tokens(IMAGES), source.tokens(IMAGES), rtol=1e-4, atol=1e-4)


def test_an_int8_layer_is_a_product_of_whole_numbers(manager: Manager, tmp_path: Path) -> None:
    source = transformer()
    layer: Any = attacked(manager, "quantize-int8", tmp_path, source).backbone.blocks[0].mlp.fc1
    old: Any = source.backbone.blocks[0].mlp.fc1
    x = torch.randn(3, 5, 32, generator=torch.Generator().manual_seed(1))
    x[..., 0] = 5  # the largest is positive, so that it is no tie between -127 and -128
    tokens, weights = x.double().numpy().reshape(-1, 32), old.weight.detach().double().numpy()
    token_scale, row_scale = (np.abs(each).max(axis=1, keepdims=True) / 127.5 for each in (tokens, weights))
    codes = layer.codes.numpy().astype(int)
    assert np.abs(codes - np.clip(weights / row_scale, -128, 127)).max() <= 0.5 + 1e-4
    product = np.clip(np.round(tokens / token_scale), -128, 127).astype(int) @ codes.T
    expected = product * token_scale * row_scale.T + old.bias.detach().double().numpy()
    with torch.no_grad():
        np.testing.assert_allclose(layer(x).reshape(-1, 128).numpy(), expected, rtol=1e-4, atol=1e-5)


def test_int8_is_what_lies_on_disk(manager: Manager, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    source = transformer()
    amb.save_checkpoint(source, tmp_path / "float")
    amb.save_checkpoint(attacked(manager, "quantize-int8", tmp_path, source), tmp_path / "int8")
    stored = load_file(tmp_path / "int8.safetensors")
    codes = [tensor for name, tensor in stored.items() if name.endswith(".codes")]
    assert len(codes) == 2 * 4
    assert {tensor.dtype for tensor in codes} == {torch.int8}
    size, before = ((tmp_path / f"{name}.safetensors").stat().st_size for name in ("int8", "float"))
    assert size < 0.5 * before


def test_int8_inside_torchs_own_transformer_layer(manager: Manager, tmp_path: Path) -> None:
    """That layer has a short cut past its parts in eval mode, which must not step around the int8 product."""
    source = toy_model(depth=1)
    block: Any = attacked(manager, "quantize-int8", tmp_path, source).backbone.blocks[0]
    tokens = torch.randn(2, 7, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        step = tokens + block.self_attn(*[block.norm1(tokens)] * 3, need_weights=False)[0]
        expected = step + block.linear2(block.linear1(block.norm2(step)).relu())
        torch.testing.assert_close(block(tokens), expected)


def test_gradients_pass_an_int8_layer_as_if_it_were_not_rounded(manager: Manager, tmp_path: Path) -> None:
    quantized: Any = attacked(manager, "quantize-int8", tmp_path, transformer())
    layer = quantized.backbone.blocks[0].mlp.fc1
    x = torch.randn(2, 32, generator=torch.Generator().manual_seed(1)).requires_grad_()
    layer(x)[:, 0].sum().backward()
    torch.testing.assert_close(x.grad[0], layer.codes[0] * layer.scale[0])


def test_fine_tuning_after_int8_changes_everything_but_the_int8_weights(manager: Manager, tmp_path: Path) -> None:
    quantized = attacked(manager, "quantize-int8", tmp_path, transformer())
    tuned = attacked(manager, "finetune:epochs=1,n_images=16,batch=8,lr=0.01", tmp_path, quantized)
    same = {
        name
        for name, tensor in quantized.backbone.state_dict().items()
        if torch.equal(tensor, tuned.backbone.state_dict()[name])
    }
    frozen = {name for name in same if not name.endswith((".codes", ".scale"))}
    assert not frozen
    assert len(same) == 2 * 2 * 4


def test_int8_does_not_apply_twice(manager: Manager, tmp_path: Path) -> None:
    (attack,) = manager.registry.attack_chain("quantize-int8")
    quantized = attacked(manager, "quantize-int8", tmp_path, transformer())
    assert "no linear layer" in (attack.skip(quantized) or "")
    assert quantized.backbone.parts(0) is None
    (retrain,) = manager.registry.attack_chain("cut-rear")
    assert "cannot be trained" in (retrain.skip(quantized) or "")
