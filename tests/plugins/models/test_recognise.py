"""Folders and files as the libraries write them, without a card of amb: recognised, or asked about."""

from __future__ import annotations

import json
import logging
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

import amb
from amb.errors import CheckpointError, MissingError, UnknownNameError
from amb.models.references import load_skeleton
from amb.ownership.form import find_form
from amb.plugin.manager import manager
from amb_models.files import FileLoader
from amb_models.recognise import ask_which
from tests.plugins.models.test_forms import HF, IMAGES, TOWER, VIT, shake, state_of, under, vit

pytestmark = pytest.mark.usefixtures("manager")
SEES = ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))


def seen(mean: Any = SEES[0], std: Any = SEES[1], images: Tensor = IMAGES) -> Tensor:
    """Images as the library is to get them."""
    return (images - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)


def close(ref: str, wanted: Tensor, images: Tensor = IMAGES) -> amb.VisionModel:
    model = amb.load_model(ref)
    with torch.no_grad():
        torch.testing.assert_close(model.features(images), wanted, rtol=1e-5, atol=1e-5)
    assert load_skeleton(ref, manager().registry).facts()._replace(ref="") == model.facts()._replace(ref="")
    return model


def write_hf(folder: Path, network: str, config: str, *, processor: bool = True, **settings: Any) -> Any:
    """A model of transformers as `save_pretrained` writes it, in shards."""
    import transformers

    net = shake(getattr(transformers, network)(getattr(transformers, config)(**settings)), 0)
    net.save_pretrained(folder, max_shard_size="8KB")
    if processor:
        made = {
            "image_mean": SEES[0],
            "image_std": SEES[1],
            "size": {"height": 32, "width": 32},
            "do_center_crop": False,
        }
        (folder / "preprocessor_config.json").write_text(json.dumps(made))
    return net


@torch.no_grad()
def test_a_folder_of_transformers_is_its_own_model(tmp_path: Path) -> None:
    net = write_hf(tmp_path, "ViTModel", "ViTConfig", **HF)
    model = close(f"file/{tmp_path}", net(seen()).pooler_output)
    assert model.digest() == amb.load_model(f"file/{tmp_path / 'model.safetensors.index.json'}").digest()
    amb.save_checkpoint(model, tmp_path / "again")
    close(f"file/{tmp_path / 'again'}", net(seen()).pooler_output)


@torch.no_grad()
@pytest.mark.parametrize(
    ("network", "config", "settings"),
    [
        ("Dinov2Model", "Dinov2Config", {"mlp_ratio": 2}),
        ("Dinov2WithRegistersModel", "Dinov2WithRegistersConfig", {"mlp_ratio": 2, "num_register_tokens": 2}),
        ("BeitModel", "BeitConfig", {"intermediate_size": 32, "use_relative_position_bias": True}),
        ("SiglipVisionModel", "SiglipVisionConfig", {"intermediate_size": 32}),
    ],
)
def test_families_of_transformers_are_recognised(network: str, config: str, settings: Any, tmp_path: Path) -> None:
    plain = {name: size for name, size in HF.items() if name != "intermediate_size"}
    net = write_hf(tmp_path, network, config, **plain, **settings)
    given = net(seen())
    close(f"file/{tmp_path}", given.last_hidden_state[:, 0] if "Dino" in network else given.pooler_output)


@torch.no_grad()
def test_a_whole_clip_of_transformers_is_recognised(tmp_path: Path) -> None:
    text = {"vocab_size": 9, "hidden_size": 8, "num_attention_heads": 2, "intermediate_size": 8, "num_hidden_layers": 1}
    for activation in ("quick_gelu", "gelu"):
        vision = {**HF, "hidden_act": activation}
        net = write_hf(tmp_path, "CLIPModel", "CLIPConfig", vision_config=vision, text_config=text, projection_dim=12)
        close(f"file/{tmp_path}", net.get_image_features(seen()).pooler_output)


@torch.no_grad()
def test_a_model_that_was_saved_alone_is_normalised_as_usual_and_that_is_said(
    caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    caplog.set_level(logging.WARNING, "amb.models")
    net = write_hf(tmp_path, "ViTModel", "ViTConfig", processor=False, **HF)
    close(f"file/{tmp_path}", net(seen([0.5] * 3, [0.5] * 3)).pooler_output)
    assert "has no preprocessor_config.json, so images are normalised as is usual for vit" in caplog.text


@torch.no_grad()
def test_a_folder_of_timm_is_its_own_model(tmp_path: Path) -> None:
    import timm
    from timm.models import save_for_hf

    net = shake(timm.create_model("vit_tiny_patch16_224", num_classes=3, **VIT), 0)
    net.pretrained_cfg.update(mean=SEES[0], std=SEES[1])
    save_for_hf(net, tmp_path, safe_serialization=True)
    model = close(f"file/{tmp_path}", net.forward_head(net.forward_features(seen()), pre_logits=True))
    amb.save_checkpoint(model, tmp_path / "again")
    assert amb.load_model(f"file/{tmp_path / 'again'}").backbone.mean == pytest.approx(SEES[0])


@torch.no_grad()
def test_a_folder_of_open_clip_is_its_own_model(tmp_path: Path) -> None:
    from open_clip.model import CLIP

    text = {"context_length": 4, "vocab_size": 9, "width": 8, "heads": 2, "layers": 1}
    for quick in (True, False):
        whole = shake(CLIP(12, TOWER, text, quick_gelu=quick), 0)
        save_file(
            {name: each.contiguous() for name, each in state_of(whole).items()},
            tmp_path / "open_clip_model.safetensors",
        )
        model_cfg = {
            "embed_dim": 12,
            "vision_cfg": {**TOWER, "patch_dropout": 0.5},
            "text_cfg": text,
            "quick_gelu": quick,
        }
        config = {"model_cfg": model_cfg, "preprocess_cfg": {"mean": SEES[0], "std": SEES[1]}}
        (tmp_path / "open_clip_config.json").write_text(json.dumps(config))
        close(f"file/{tmp_path}", whole.encode_image(seen()))


@torch.no_grad()
def test_a_folder_of_two_libraries_is_asked_about(tmp_path: Path) -> None:
    net = write_hf(tmp_path, "ViTModel", "ViTConfig", **HF)
    save_file({"a": torch.zeros(1)}, tmp_path / "open_clip_model.safetensors")
    with pytest.raises(
        CheckpointError, match=r"two libraries. Say which are meant: file/\S+model.safetensors or file/"
    ):
        amb.load_model(f"file/{tmp_path}")
    close(f"file/{tmp_path / 'model.safetensors'}", net(seen()).pooler_output)


@pytest.mark.parametrize("text", ["[", "[]", '{"architecture": []}', '{"architecture": "x", "model_args": 3}', "{}"])
def test_a_configuration_that_is_none_is_refused(text: str, tmp_path: Path) -> None:
    save_file({"a": torch.zeros(1)}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(text)
    with pytest.raises((CheckpointError, UnknownNameError)) as caught:
        amb.load_model(f"file/{tmp_path}")
    assert "\n" not in str(caught.value)


# Files alone


@torch.no_grad()
def test_weights_alone_are_what_their_name_says(tmp_path: Path) -> None:
    import timm

    net = shake(timm.create_model("test_vit.r160_in1k", num_classes=0), 0)
    save_file(under("teacher.", state_of(net)), tmp_path / "m.safetensors")
    images = torch.rand(2, 3, 160, 160)
    close(f"file/{tmp_path / 'm.safetensors'}:as=timm/test_vit.r160_in1k", net((images - 0.5) / 0.5), images)
    close(f"file/{tmp_path / 'm'}:as=timm/test_vit.r160_in1k:weights=teacher", net((images - 0.5) / 0.5), images)
    with pytest.raises(UnknownNameError):
        amb.load_model(f"file/{tmp_path / 'm'}:as=nobody/test_vit")
    with pytest.raises(CheckpointError, match="does not fit its network"):
        amb.load_model(f"file/{tmp_path / 'm'}:as=timm/test_vit2.r160_in1k")


def shapes_of(net: torch.nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(each.shape) for name, each in net.state_dict().items()}


def test_weights_alone_are_asked_about(tmp_path: Path) -> None:
    save_file(state_of(vit()), tmp_path / "m.safetensors")
    with pytest.raises(
        MissingError, match=r"m.json does not exist.*3 blocks of width 32, patches of 8 pixels. No name"
    ) as caught:
        amb.load_model(f"file/{tmp_path / 'm'}")
    assert "\n" not in str(caught.value)


def test_names_and_shapes_name_candidates() -> None:
    import timm

    with torch.device("meta"):
        shapes = shapes_of(timm.create_model("vit_tiny_patch16_224"))
    for prefix in ("", "module.", "teacher.backbone."):
        said = ask_which({prefix + name: shape for name, shape in shapes.items()})
        assert "a vision transformer of timm: 12 blocks of width 192, patches of 16 pixels" in said
        assert re.search(r"It fits .*vit_tiny_patch16_224.*:as=timm/", said)
        assert "distilled" not in said
    tower = {"conv1.weight": (768, 3, 32, 32), "proj": (768, 512)}
    tower |= {f"transformer.resblocks.{block}.ln_1.weight": (768,) for block in range(12)}
    said = ask_which({f"visual.{name}": shape for name, shape in tower.items()})
    assert re.search(r"It fits .*ViT-B-32, .*ViT-B-32-quickgelu.*:as=open_clip/", said)
    assert "put its config.json" in ask_which({"vit.embeddings.patch_embeddings.projection.weight": (16, 3, 8, 8)})
    assert "no network that amb knows" in ask_which({"a": (1,)})


# What writing a model in its own form needs


def test_the_files_of_a_model_are_known(tmp_path: Path) -> None:
    write_hf(tmp_path / "hf", "ViTModel", "ViTConfig", **HF)
    files = FileLoader().files(str(tmp_path / "hf"))
    assert files is not None
    assert {each.name for each in files.weights} == {each.name for each in (tmp_path / "hf").glob("*.safetensors")}
    assert {each.name for each in files.beside} == {
        *("config.json", "preprocessor_config.json", "model.safetensors.index.json"),
    }
    save_file(state_of(vit()), tmp_path / "m.safetensors")
    card = {"architecture": {"loader": "timm", "name": "vit_tiny_patch16_224", "options": VIT}, "weights": "library"}
    (tmp_path / "m.json").write_text(json.dumps(card))
    assert FileLoader().files(str(tmp_path / "m")) == ((tmp_path / "m.safetensors",), (tmp_path / "m.json",))
    amb.save_checkpoint(amb.load_model(f"file/{tmp_path / 'm'}"), tmp_path / "own")
    assert FileLoader().files(str(tmp_path / "own")) is None


@pytest.mark.parametrize("form", ["shards", "wrapped", "gamma", "masked", "one of two"])
def test_a_changed_model_is_written_in_the_form_in_which_it_came(form: str, tmp_path: Path) -> None:
    ours = state_of(vit())
    mask = {"norm.bias_orig": ours["norm.bias"], "norm.bias_mask": torch.ones(32)}
    states = {
        "wrapped": under("module.", ours),
        "gamma": {name.replace("norm1.weight", "norm1.gamma"): each for name, each in ours.items()},
        "masked": {**{name: each for name, each in ours.items() if name != "norm.bias"}, **mask},
        "one of two": {**under("a.", ours), **under("b.", ours)},
    }
    if form == "shards":
        write_hf(tmp_path / "m", "ViTModel", "ViTConfig", **HF)
    else:
        card = {
            "architecture": {"loader": "timm", "name": "vit_tiny_patch16_224", "options": VIT},
            "weights": "library",
        }
        (tmp_path / "m.json").write_text(json.dumps(card))
        save_file(states[form], tmp_path / "m.safetensors")
    ref = f"file/{tmp_path / 'm'}" + (":weights=a" if form == "one of two" else "")
    before = amb.load_model(ref)
    after = before.copy()
    changed = [weight for name, weight in after.named_parameters() if "fc1.weight" in name or "norm1.weight" in name]
    for weight in changed:
        weight.data.add_(0.25)
    written = find_form(ref, before, manager().registry)
    (tmp_path / "out").mkdir()
    assert len(written.write(before, after, tmp_path / "out")) == len(changed) >= 3
    assert written.read(tmp_path / "out").digest() == after.digest()
    if form in {
        "shards",
        "wrapped",
        "gamma",
    }:  # the others are written in amb's own form, for a mark would fall between parts
        kept = {each.name for each in (tmp_path / "out").iterdir()}
        assert kept == (
            {each.name for each in (tmp_path / "m").iterdir()} if form == "shards" else {"m.json", "m.safetensors"}
        )
