"""Checkpoints of the libraries: the marked copy loads with the library itself, and is found again in what strangers make of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import amb
from amb.errors import UsageError
from amb.ownership.key_facts import open_key
from amb.ownership.same_form import write_model
from amb.ownership.verification import Finding, open_suspect, verify
from amb.plugin.manager import Manager
from tests.ownership.protecting import protect_toy

METHOD = "spread-weights:n_messages=8"
SIZES = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "image_size": 32, "patch_size": 8}


def shake(net: Any, seed: int = 0) -> Any:
    generator = torch.Generator().manual_seed(seed)
    for weight in net.parameters():
        weight.data.normal_(std=0.1, generator=generator)
    return net


def hf_folder(folder: Path) -> None:
    """A classifier of transformers in bfloat16 and four shards, with its processor."""
    import transformers

    settings = transformers.ViTConfig(**SIZES, intermediate_size=64, num_labels=5)
    net = shake(transformers.ViTForImageClassification(settings)).to(torch.bfloat16)
    net.save_pretrained(folder, max_shard_size="30KB")
    transformers.ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)


def timm_file(path: Path) -> None:
    import timm

    save_file(shake(timm.create_model("vit_tiny_patch16_224", depth=12)).state_dict(), path)


def protect_file(manager: Manager, ref: str, target: Path, method: str = METHOD) -> Path:
    return protect_toy(manager, target, method=method, model=ref)


def find(manager: Manager, folder: Path, *models: amb.VisionModel) -> list[Finding]:
    """What the key of a protected folder reads, each model on its own."""
    opened = open_key(folder / "key", str)
    method = manager.registry.method(opened.key.method)
    unmarked = amb.load_model(opened.facts.unmarked)
    return [
        verify(opened, method, [open_suspect(each.ref, each, method)], unmarked=lambda: unmarked)[0] for each in models
    ]


@pytest.mark.usefixtures("manager")
def test_a_folder_of_transformers_comes_out_as_it_came(manager: Manager, tmp_path: Path) -> None:
    """The same files, names, types and shards; the head is not the encoder's, and stays; only matrices differ."""
    import transformers

    hf_folder(tmp_path / "came")
    folder = protect_file(manager, f"file/{tmp_path / 'came'}", tmp_path / "protected")
    came, went = (
        {path.name: load_file(path) if path.suffix == ".safetensors" else path.read_bytes() for path in each.iterdir()}
        for each in (tmp_path / "came", folder / "model")
    )
    assert came.keys() == went.keys()
    assert sum(name.endswith(".safetensors") for name in came) > 2
    for name, before in came.items():
        if isinstance(before, bytes):
            assert before == went[name]
            continue
        after = went[name]
        assert {key: (each.dtype, each.shape) for key, each in before.items()} == {
            key: (each.dtype, each.shape) for key, each in after.items()
        }
        changed = [key for key in before if not torch.equal(before[key], after[key])]
        assert all(before[key].ndim >= 2 and "classifier" not in key for key in changed)
    net = transformers.AutoModelForImageClassification.from_pretrained(folder / "model", dtype="auto")
    assert net.dtype == torch.bfloat16
    (found,) = find(manager, folder, amb.load_model(f"file/{folder / 'model'}"))
    assert found.claim


@pytest.mark.usefixtures("manager")
def test_a_file_of_timm_is_claimed_after_training_and_pruning_with_torchs_own_tools(
    manager: Manager, tmp_path: Path
) -> None:
    import timm
    from torch.nn.utils import prune

    timm_file(tmp_path / "came.safetensors")
    alike = ":as=timm/vit_tiny_patch16_224"
    folder = protect_file(manager, f"file/{tmp_path / 'came'}{alike}", tmp_path / "protected")
    other = protect_file(manager, f"file/{tmp_path / 'came'}{alike}", tmp_path / "another owner")

    def load(path: Path) -> torch.nn.Module:
        return timm.create_model("vit_tiny_patch16_224", checkpoint_path=str(path))

    def keep(net: torch.nn.Module, name: str) -> amb.VisionModel:
        save_file(net.state_dict(), tmp_path / f"{name}.safetensors")
        return amb.load_model(f"file/{tmp_path / name}{alike}")

    def train(net: torch.nn.Module) -> torch.nn.Module:
        optimizer, images = torch.optim.AdamW(net.parameters(), lr=1e-4), torch.rand(2, 3, 224, 224)
        for labels in torch.randint(1000, (2, 2)):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(net(images), labels).backward()
            optimizer.step()
        return net

    marked = folder / "model" / "came.safetensors"
    pruned = load(marked)
    for module in pruned.modules():
        if isinstance(module, torch.nn.Linear):
            prune.l1_unstructured(module, "weight", 0.5)
    suspects = [keep(load(marked), "copy"), keep(train(load(marked)), "tuned"), keep(pruned, "pruned")]
    innocents = [
        amb.load_model(f"file/{tmp_path / 'came'}{alike}"),
        keep(train(load(tmp_path / "came.safetensors")), "unmarked tuned"),
        keep(load(other / "model" / "came.safetensors"), "another's"),
        keep(shake(load(marked), seed=5), "independent"),
    ]
    assert all(each.claim for each in find(manager, folder, *suspects))
    assert not any(each.claim for each in find(manager, folder, *innocents))


@pytest.mark.usefixtures("manager")
def test_a_mark_that_a_files_own_form_cannot_hold_is_said(manager: Manager, tmp_path: Path) -> None:
    """A weight that the loader makes of two tensors stands nowhere, so nothing could be written back."""
    timm_file(tmp_path / "came.safetensors")
    before = amb.load_model(f"file/{tmp_path / 'came'}:as=timm/vit_tiny_patch16_224")
    after = before.copy()
    after.backbone.net.norm.weight.data += 1

    def load(state: Any) -> amb.VisionModel:
        model = before.copy()
        model.backbone.net.norm.weight.data = state["norm.weight"] * state["norm.bias"]
        return model

    files = amb.CheckpointFiles((tmp_path / "came.safetensors",))
    with pytest.raises(UsageError, match="does not stand in the files as such"):
        write_model(before, after, files, load, tmp_path)
