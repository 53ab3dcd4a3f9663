"""What is refused for its size, and that known large encoders are not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

import amb
from amb.errors import CheckpointError
from amb.models.size_limits import limit_size, refuse_large_maps
from amb.runtime.safetensors_header import read_header


def test_a_header_says_names_and_shapes(tmp_path: Path) -> None:
    save_file({"a": np.zeros((2, 3), np.float16), "b": np.zeros((), np.int8)}, tmp_path / "x.safetensors")
    header = read_header(tmp_path / "x.safetensors")
    assert header.shapes == {"a": (2, 3), "b": ()}
    assert header.n_weights == 7


@pytest.mark.parametrize(
    "architecture",
    [
        {"loader": "timm", "name": "vit_giant_patch14_dinov2", "options": {"img_size": 518}},
        {
            "loader": "open_clip",
            "embed_dim": 1024,
            "vision": {
                "image_size": 224,
                "layers": 40,
                "width": 1408,
                "head_width": 88,
                "mlp_ratio": 4.3637,
                "patch_size": 14,
            },
        },
        {
            "loader": "hf",
            "model_type": "dinov2",
            "image_size": 518,
            "config": {
                "hidden_size": 1536,
                "num_hidden_layers": 40,
                "num_attention_heads": 24,
                "use_swiglu_ffn": True,
                "image_size": 518,
                "patch_size": 14,
            },
        },
    ],
    ids=lambda each: each["loader"],
)
def test_the_largest_encoders_pass(architecture: dict[str, object]) -> None:
    with torch.device("meta"):
        n_weights = sum(each.numel() for each in amb.build_model(architecture).state_dict().values())
    assert n_weights > 1_000_000_000
    with limit_size("a giant", n_weights, 1000), torch.device("meta"):
        model = amb.build_model(architecture)
    refuse_large_maps(model, "a giant")
    with (
        pytest.raises(CheckpointError, match="describes a network that makes"),
        limit_size("a giant", n_weights // 8, 1000),
    ):
        amb.build_model(architecture)


def test_operations_are_weighed_before_they_are_done() -> None:
    for work in (
        lambda: torch.zeros(2**16, 2**16),
        lambda: torch.arange(2**15)[:, None] - torch.arange(2**15)[None],
        lambda: torch.ones(4).repeat(2**30),
        lambda: torch.stack(torch.meshgrid([torch.arange(2**14)] * 2, indexing="ij")),
        lambda: torch.nn.functional.interpolate(torch.ones(1, 1, 2, 2), size=(2**15, 2**15)),
        lambda: torch.nn.Linear(2**14, 2**14),
    ):
        with pytest.raises(CheckpointError, match="describes a network"), limit_size("it", 10):
            work()


def test_weighing_changes_no_random_number() -> None:
    torch.manual_seed(0)
    plain = torch.nn.Linear(300, 300).weight
    torch.manual_seed(0)
    with limit_size("it", 10**6):
        assert torch.nn.Linear(300, 300).weight.equal(plain)


def test_weighing_leaves_what_libraries_keep_as_it_was() -> None:
    """The index of BEiT's positions is kept by transformers, by the size of the window."""
    config = {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 40, "patch_size": 8}
    architecture = {"loader": "hf", "model_type": "beit", "image_size": 40}
    model = amb.build_model({**architecture, "config": {**config, "use_relative_position_bias": True}})
    refuse_large_maps(model, "it")
    assert model.eval().features(torch.rand(1, 3, 40, 40)).isfinite().all()
