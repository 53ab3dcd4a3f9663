"""Every family of vision models, as the real class of its library with a few random weights, against that library."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

import amb
from amb.models.checkpoint import save_checkpoint
from amb.plugin.manager import Manager
from amb.testing import toy_context
from tests.conftest import run_toy

pytestmark = pytest.mark.usefixtures("manager")


def timm(name: str, size: int | None = None, **options: Any) -> dict[str, Any]:
    wanted = {"image_size": size} if size else {}
    return {"loader": "timm", "name": name, "options": options, **wanted}


def open_clip(embed_dim: int = 24, **vision: Any) -> dict[str, Any]:
    return {"loader": "open_clip", "embed_dim": embed_dim, "quick_gelu": True, "vision": vision}


def hf(model_type: str, size: int = 32, pooler: bool = False, **config: Any) -> dict[str, Any]:
    return {"loader": "hf", "model_type": model_type, "config": config, "image_size": size, "pooler": pooler}


VIT = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 3, "num_heads": 4}
EVA = {"img_size": 32, "patch_size": 8, "embed_dim": 48, "depth": 3, "num_heads": 4}
TOWER = {"layers": 3, "width": 32, "head_width": 8, "patch_size": 8, "image_size": 32}
HF = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "patch_size": 8,
    "image_size": 32,
}
WIDE = {**HF, "intermediate_size": 64}
DINO = {**HF, "mlp_ratio": 2}

BLOCKS = {
    "timm CLIP": timm("vit_base_patch32_clip_224.openai", **VIT),
    "timm DINOv2": timm("vit_small_patch14_dinov2.lvd142m", **VIT),
    "timm DINOv2 registers": timm("vit_small_patch14_reg4_dinov2.lvd142m", **VIT),
    "timm MAE": timm("vit_base_patch16_224.mae", **VIT),
    "timm SigLIP": timm("vit_base_patch16_siglip_224.webli", **VIT),
    "timm DeiT III": timm("deit3_small_patch16_224.fb_in1k", **VIT),
    "timm DeiT distilled": timm("deit_tiny_distilled_patch16_224.fb_in1k", **VIT),
    "timm BEiT": timm("beit_base_patch16_224.in22k_ft_in22k", **VIT),
    "timm BEiT shared": timm(
        "beit_base_patch16_224.in22k_ft_in22k", use_rel_pos_bias=False, use_shared_rel_pos_bias=True, **VIT
    ),
    "timm EVA02": timm("eva02_tiny_patch14_224.mim_in22k", **EVA),
    "open_clip CLIP": open_clip(**TOWER),
    "open_clip late norm": open_clip(**TOWER, final_ln_after_pool=True, pool_type="avg", no_ln_pre=True),
    "open_clip CoCa": open_clip(**TOWER, attentional_pool=True, attn_pooler_queries=5, attn_pooler_heads=4),
    "open_clip SigLIP": open_clip(192, timm_model_name="test_vit", image_size=160, timm_pool="map", timm_proj="none"),
    "open_clip linear": open_clip(timm_model_name="test_vit", image_size=160, timm_pool="avg", timm_proj="linear"),
    "hf ViT": hf("vit", pooler=True, **WIDE),
    "hf ViT without pooler": hf("vit", **WIDE),
    "hf DeiT": hf("deit", pooler=True, **WIDE),
    "hf MAE": hf("vit_mae", **WIDE),
    "hf BEiT": hf("beit", pooler=True, use_relative_position_bias=True, **WIDE),
    "hf BEiT shared": hf("beit", use_shared_relative_position_bias=True, use_mask_token=True, **WIDE),
    "hf DINOv2": hf("dinov2", **DINO),
    "hf DINOv2 at another size": hf("dinov2", size=48, **DINO),
    "hf DINOv2 registers": hf("dinov2_with_registers", num_register_tokens=2, **DINO),
    "hf CLIP": hf("clip_vision_model", projection_dim=24, **WIDE),
    "hf SigLIP": hf("siglip_vision_model", **WIDE),
}
"""Families that are cut into blocks."""
MAPS = {
    "timm ResNet": timm("resnet10t.c3_in1k", 64, channels=[8, 8, 16, 16]),
    "timm ConvNeXt": timm("convnext_atto.d2_in1k", 64, depths=[1, 1, 1, 1], dims=[8, 8, 16, 16]),
    "timm Swin": timm(
        "swin_tiny_patch4_window7_224.ms_in1k",
        img_size=64,
        embed_dim=16,
        depths=[1, 1],
        num_heads=[2, 2],
        window_size=4,
    ),
    "open_clip ResNet": open_clip(layers=[1, 1, 1, 1], width=8, head_width=8, image_size=64),
    "open_clip ConvNeXt": open_clip(timm_model_name="test_convnext", image_size=64, timm_pool="", timm_proj="linear"),
    "hf Swin": hf("swin", 64, embed_dim=16, depths=[1, 1], num_heads=[2, 2], window_size=4, image_size=64),
    "hf ConvNeXt": hf("convnext", 64, hidden_sizes=[8, 16], depths=[1, 1], num_stages=2),
    "hf ResNet": hf("resnet", 64, embedding_size=8, hidden_sizes=[16, 32], depths=[1, 1]),
}
"""Families that have a map of places and no blocks."""
FAMILIES = {**BLOCKS, **MAPS}


class Library:
    """A network made by the library alone, with a text tower or a classifier beside the encoder where it has one."""

    def __init__(self, architecture: dict[str, Any]) -> None:
        self.card = architecture
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.whole = getattr(self, f"make_{architecture['loader']}")()
            for weight in self.whole.parameters():  # also those that a library begins with 0 or 1
                weight.data.add_(0.1 * torch.randn(weight.shape))
        self.whole.eval()

    def make_timm(self) -> nn.Module:
        import timm

        options = {key: tuple(each) if isinstance(each, list) else each for key, each in self.card["options"].items()}
        return timm.create_model(self.card["name"], **options)

    def make_open_clip(self) -> nn.Module:
        from open_clip.model import CustomTextCLIP

        text = {"context_length": 4, "vocab_size": 9, "width": 8, "heads": 2, "layers": 1}
        return CustomTextCLIP(self.card["embed_dim"], dict(self.card["vision"]), text, quick_gelu=True)

    def make_hf(self) -> nn.Module:
        import transformers as hub

        config, text = self.card["config"], {"vocab_size": 9, "hidden_size": 8, "num_attention_heads": 2}
        text |= {"intermediate_size": 8, "num_hidden_layers": 1}
        return {
            "vit": lambda: (
                hub.ViTModel(hub.ViTConfig(**config))
                if self.card["pooler"]
                else hub.ViTForImageClassification(hub.ViTConfig(**config))
            ),
            "deit": lambda: hub.DeiTModel(hub.DeiTConfig(**config)),
            "beit": lambda: (
                hub.BeitForImageClassification(hub.BeitConfig(**config))
                if self.card["pooler"]
                else hub.BeitForMaskedImageModeling(hub.BeitConfig(**config))
            ),
            "vit_mae": lambda: hub.ViTMAEForPreTraining(hub.ViTMAEConfig(**config, mask_ratio=0.0)),
            "dinov2": lambda: hub.Dinov2ForImageClassification(hub.Dinov2Config(**config)),
            "dinov2_with_registers": lambda: hub.Dinov2WithRegistersModel(hub.Dinov2WithRegistersConfig(**config)),
            "clip_vision_model": lambda: hub.CLIPModel(
                hub.CLIPConfig(vision_config=config, text_config=text, projection_dim=config["projection_dim"])
            ),
            "siglip_vision_model": lambda: hub.SiglipModel(hub.SiglipConfig(vision_config=config, text_config=text)),
            "swin": lambda: hub.SwinForImageClassification(hub.SwinConfig(**config)),
            "convnext": lambda: hub.ConvNextForImageClassification(hub.ConvNextConfig(**config)),
            "resnet": lambda: hub.ResNetForImageClassification(hub.ResNetConfig(**config)),
        }[self.card["model_type"]]()

    def save(self, stem: Path) -> None:
        """As the library saves it, and a card that says so."""
        if self.card["loader"] == "hf":
            self.whole.save_pretrained(stem.parent)
            (stem.parent / "model.safetensors").rename(f"{stem}.safetensors")
        else:
            save_file(
                {name: each.contiguous() for name, each in self.whole.state_dict().items()}, f"{stem}.safetensors"
            )
        Path(f"{stem}.json").write_text(json.dumps({"architecture": self.card, "weights": "library"}))

    def answers(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Output tokens and the pooled embedding, by the library's own forward pass."""
        with torch.no_grad():
            return getattr(self, f"answers_{self.card['loader']}")(images)

    def answers_timm(self, images: Tensor) -> tuple[Tensor, Tensor]:
        net: Any = self.whole
        places = net.forward_features(images)
        return flat(places, getattr(net, "output_fmt", "NCHW")), net.forward_head(places, pre_logits=True)

    def answers_open_clip(self, images: Tensor) -> tuple[Tensor, Tensor]:
        net: Any = self.whole.visual
        if hasattr(net, "trunk"):
            tokens = flat(net.trunk.forward_features(images), getattr(net.trunk, "output_fmt", "NCHW"))
        else:
            late = hasattr(net, "attnpool") or net.attn_pool is not None or net.final_ln_after_pool
            last = net.layer4 if hasattr(net, "layer4") else net.transformer if late else net.ln_post
            tokens = flat(recorded(net, [last], images)[0])
        return tokens, self.whole.encode_image(images)

    def answers_hf(self, images: Tensor) -> tuple[Tensor, Tensor]:
        net: Any = self.whole
        tower = next((each for name, each in net.named_children() if name in TOWERS), net)
        if self.card["model_type"] == "vit_mae":
            noise = torch.arange((images.shape[-1] // 8) ** 2).expand(len(images), -1)
            tokens = tower(images, noise=noise).last_hidden_state
            return tokens, tokens[:, 0]
        given = tower(images)
        if self.card["model_type"] == "clip_vision_model":
            return given.last_hidden_state, net.get_image_features(images).pooler_output
        has_pooler = given.pooler_output is not None
        tokens = given.last_hidden_state
        return flat(tokens), given.pooler_output.flatten(1) if has_pooler else tokens[:, 0]

    def blocks(self) -> list[nn.Module]:
        """The blocks, found by their place in the library's own network."""
        names = ("blocks", "resblocks", "layer", "layers")
        vision = (each for name, each in self.whole.named_modules() if not name.startswith(("text", "decoder")))
        return next(list(getattr(each, name)) for each in vision for name in names if hasattr(each, name))


TOWERS = ("vit", "beit", "dinov2", "vision_model", "swin", "convnext", "resnet")


def flat(places: Tensor, form: str = "NCHW") -> Tensor:
    """A map as tokens, row by row."""
    if places.ndim == 3:
        return places
    return places.flatten(1, 2) if form == "NHWC" else places.flatten(2).mT


def recorded(net: Any, modules: list[nn.Module], images: Tensor) -> list[Tensor]:
    """What leaves modules while the library passes images through its network."""
    left: list[Tensor] = []
    hooks = [each.register_forward_hook(lambda _, __, output: left.append(output)) for each in modules]
    with torch.no_grad():
        net(images)
    for hook in hooks:
        hook.remove()
    return left


def images_for(model: amb.VisionModel, n: int = 2) -> tuple[Tensor, Tensor]:
    """Images, and what the library is to get of them: normalised by hand."""
    side = model.backbone.image_size
    images = torch.rand(n, 3, side, side, generator=torch.Generator().manual_seed(1))
    mean, std = (torch.tensor(numbers).view(3, 1, 1) for numbers in (model.backbone.mean, model.backbone.std))
    return images, (images - mean) / std


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@cache
def library(family: str) -> Library:
    return Library(FAMILIES[family])


def loaded(family: str, folder: Path) -> amb.VisionModel:
    """The library's model, through its own file."""
    stem = folder / family.replace(" ", "-")
    if not stem.with_suffix(".safetensors").exists():
        library(family).save(stem)
    return amb.load_model(f"file/{stem}")


def close(ours: Tensor, theirs: Tensor) -> None:
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_tokens_and_features_are_the_librarys(family: str, folder: Path) -> None:
    model = loaded(family, folder)
    images, normalised = images_for(model)
    tokens, features = library(family).answers(normalised)
    with torch.no_grad():
        close(model.tokens(images), tokens)
        close(model.features(images), features)
    assert model.facts().dim == tokens.shape[2]
    assert model.facts().n_features == features.shape[1]


@pytest.mark.parametrize("family", BLOCKS)
def test_every_block_gives_what_it_gives_inside_the_library(family: str, folder: Path) -> None:
    model, whole = loaded(family, folder), library(family)
    images, normalised = images_for(model)
    vision = getattr(whole.whole, "vision_model", getattr(whole.whole, "visual", whole.whole))
    if whole.card.get("model_type") == "vit_mae":
        vision = whole.whole.vit
        given = {"noise": torch.arange(16).expand(2, -1)}
        net: Any = lambda each: vision(each, **given)  # noqa: E731
    else:
        net = vision
    left = recorded(net, whole.blocks(), normalised)
    assert len(left) == model.n_blocks >= 2
    with torch.no_grad():
        for block, tokens in enumerate(left):
            close(model.prefix(images, block), tokens)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_saved_model_is_built_again_from_its_card(family: str, folder: Path, tmp_path: Path) -> None:
    model = loaded(family, folder)
    save_checkpoint(model, tmp_path / "again")
    again = amb.load_model(f"file/{tmp_path / 'again'}")
    assert again.digest() == model.digest() == loaded(family, folder).digest()
    images, _ = images_for(model)
    with torch.no_grad():
        torch.testing.assert_close(again.features(images), model.features(images), rtol=0, atol=0)


@pytest.mark.parametrize("family", ["timm BEiT shared", "timm EVA02", "hf BEiT shared"])
def test_a_copy_hands_its_own_positions_to_its_blocks(family: str, folder: Path) -> None:
    model = loaded(family, folder)
    images, _ = images_for(model)
    with torch.no_grad():
        before = model.features(images)
        twin = model.copy()
        for name, weight in twin.named_parameters():
            if "position_bias" in name or "rel_pos_bias" in name or name.endswith("pos_embed"):
                weight.normal_(std=5.0)
        assert not torch.allclose(twin.features(images), before)
        torch.testing.assert_close(model.features(images), before, rtol=0, atol=0)


@pytest.mark.parametrize("family", [each for each in BLOCKS if each.startswith(("open_clip CLIP", "hf"))])
def test_another_size_of_images_is_the_librarys_own(family: str, folder: Path) -> None:
    model = loaded(family, folder)
    model.backbone.resize(48)
    images, normalised = images_for(model)
    whole: Any = library(family).whole
    with torch.no_grad():
        ours = model.features(images)
        if family == "open_clip CLIP":
            from open_clip.model import resize_pos_embed

            resized = Library({**FAMILIES[family], "vision": {**TOWER, "image_size": 48}})
            state = whole.state_dict()
            resize_pos_embed(state, resized.whole)
            resized.whole.load_state_dict(state)
            close(ours, resized.whole.encode_image(normalised))
        elif "BEiT" in family or "DINO" in family:
            close(ours, library(family).answers(normalised)[1])
        elif family == "hf MAE":
            noise = torch.arange(36).expand(2, -1)
            close(ours, whole.vit(normalised, noise=noise, interpolate_pos_encoding=True).last_hidden_state[:, 0])
        elif family == "hf CLIP":
            close(ours, whole.get_image_features(normalised, interpolate_pos_encoding=True).pooler_output)
        else:
            tower = getattr(whole, "vision_model", getattr(whole, "vit", whole))
            given = tower(normalised, interpolate_pos_encoding=True)
            close(ours, given.last_hidden_state[:, 0] if given.pooler_output is None else given.pooler_output)


NO_MATRICES = ("token", "tokens", "probe", "latent", "query", "pos_embed", "bias_table")
"""How the libraries' names end of what has several axes and is no matrix: learnt tokens, and positions."""


def count_by_shape(named: Iterable[tuple[str, nn.Parameter]]) -> int:
    """How many weights lie in matrices, by the number of their axes and the libraries' names alone."""
    named = [(name.removesuffix(".weight"), weight) for name, weight in named]
    return sum(
        weight.numel()
        for name, weight in named
        if weight.ndim >= 2 and not name.endswith(NO_MATRICES) and not re.search("position(al)?_embeddings?$", name)
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_matrices_are_all_of_them_in_the_blocks_and_outside(family: str) -> None:
    model = amb.build_model(FAMILIES[family])
    named = dict(model.backbone.named_parameters())
    counted = [(matrix.name, named[matrix.name]) for matrix in model.matrices()]
    assert len({name for name, _ in counted}) == len(counted)
    assert sum(weight.numel() for _, weight in counted) == count_by_shape(named.items())
    for block in model.backbone.blocks:
        inside = {id(weight) for weight in block.parameters()}
        assert sum(weight.numel() for _, weight in counted if id(weight) in inside) == count_by_shape(
            block.named_parameters()
        )


@pytest.mark.parametrize("family", FAMILIES)
def test_a_matrix_says_where_it_is_and_which_axis_counts_outputs(family: str) -> None:
    model = amb.build_model(FAMILIES[family])
    named = dict(model.backbone.named_parameters())
    for matrix in model.matrices():
        assert getattr(matrix.module, matrix.parameter) is named[matrix.name]
        assert matrix.weight.data_ptr() == named[matrix.name].data_ptr()
        assert not matrix.weight.requires_grad
        assert matrix.output_axis == (1 if matrix.name == "net.proj" else 0)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("spec", ["prune:amount=0.5,scope=layer", "noise", "quantize:bits=3"])
def test_attacks_on_matrices_reach_every_one_and_nothing_else(
    family: str, spec: str, manager: Manager, tmp_path: Path
) -> None:
    model = amb.build_model(FAMILIES[family])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for weight in model.parameters():
            weight.data.normal_()
    (attack,) = manager.registry.attack_chain(spec)
    before, after = (
        dict(each.backbone.named_parameters()) for each in (model, attack.apply(model, toy_context(tmp_path)))
    )
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {matrix.name for matrix in model.matrices()}


def test_bits_of_a_projection_that_is_kept_inputs_first_have_a_scale_for_each_output(
    manager: Manager, tmp_path: Path
) -> None:
    model = amb.build_model(FAMILIES["open_clip CLIP"])
    (attack,) = manager.registry.attack_chain("quantize:bits=3")
    before, after = (each.backbone.net.proj for each in (model, attack.apply(model, toy_context(tmp_path))))
    torch.testing.assert_close(after.abs().amax(dim=0), before.abs().amax(dim=0))  # the largest of each column stays
    for column in after.T:
        assert len(column.unique()) <= 7


STEPS = "activemark:n_bits=4,n_triggers=8,steps=2,batch=8,n_images=8,block=0"
CHAIN = "prune20+finetune-cosine:epochs=1,n_images=8,batch=8"
VARIANTS = ("shared", "another size", "late norm", "linear", "without pooler")
"""Of a family that runs in another form."""


@pytest.mark.parametrize("family", [each for each in BLOCKS if not each.endswith(VARIANTS)])
def test_a_whole_run_marks_attacks_and_reads_it(family: str, folder: Path, manager: Manager, tmp_path: Path) -> None:
    loaded(family, folder)
    run = run_toy(
        manager, tmp_path, methods=[STEPS], attacks=[CHAIN], model=f"file/{folder / family.replace(' ', '-')}"
    )
    positives = [result for result in run.results if result.cell.kind == "positive"]
    assert [(each.status, each.reason) for each in positives] == [("ok", "")] * len(positives)
    assert len(positives) == 2


@pytest.mark.parametrize("family", MAPS)
def test_a_map_is_skipped_by_a_method_of_tokens(family: str, folder: Path, manager: Manager, tmp_path: Path) -> None:
    loaded(family, folder)
    run = run_toy(
        manager, tmp_path, methods=[STEPS], attacks=[CHAIN], model=f"file/{folder / family.replace(' ', '-')}"
    )
    positives = [result for result in run.results if result.cell.kind == "positive"]
    assert {each.status for each in positives} == {"skipped"}
    assert all("has no transformer blocks" in each.reason for each in positives)
