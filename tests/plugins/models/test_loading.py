"""Where models come from: the hub's cache, cards of strangers, files; and what is said where something is wrong."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

import amb
from amb.errors import CheckpointError, MissingError, UnknownNameError
from amb.models.checkpoint import save_checkpoint
from amb.models.references import load_skeleton, require_models
from amb.plugin.manager import manager
from amb.testing import toy_model
from amb_models import catalogue, known
from amb_models.loaders import HfLoader, OpenClipLoader, TimmLoader

pytestmark = pytest.mark.usefixtures("manager")

SMALL = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "image_size": 32,
    "patch_size": 8,
}
SEES = {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6]}
TOWER = {"layers": 2, "width": 16, "head_width": 8, "patch_size": 8, "image_size": 32}
COMPUTED = ("deepseek_vit", "qwen3_vit")
"""timm computes the names of these in a loop; the loader asks it for them."""
NOT_HERE = [
    ("timm/vit_large_patch14_dinov2.lvd142m", "timm/vit_large_patch14_dinov2.lvd142m model.safetensors"),
    ("open_clip/ViT-L-14/openai", "timm/vit_large_patch14_clip_224.openai open_clip_model.safetensors"),
    ("hf/facebook/dinov2-large", "facebook/dinov2-large config.json preprocessor_config.json model.safetensors"),
]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the hub, and no network."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("AMB_OFFLINE", "1")
    return tmp_path / "hub"


def put(cache: Path, repo: str, revision: str = "main") -> Path:
    """The folder of a repository's files in the hub's cache, laid out as the hub's client does."""
    root = cache / f"models--{repo.replace('/', '--')}"
    (root / "refs").mkdir(parents=True, exist_ok=True)
    (root / "refs" / revision).write_text("0" * 40)
    snapshot = root / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True, exist_ok=True)
    return snapshot


def put_vit(cache: Path, processor: dict[str, Any], model_type: str = "vit", **config: Any) -> torch.nn.Module:
    """A repository such as others upload: a small classifier of transformers."""
    import transformers

    name = {"vit": "ViT", "dinov2": "Dinov2"}[model_type]
    settings = getattr(transformers, f"{name}Config")(**{**SMALL, **config})
    torch.manual_seed(3)
    net = getattr(transformers, f"{name}Model")(settings).eval()
    folder = put(cache, "someone/small")
    net.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    return net


def put_timm(cache: Path, change: Callable[[dict[str, torch.Tensor]], None] = lambda _: None) -> torch.nn.Module:
    """One of timm's own small models, its weights random."""
    import timm

    torch.manual_seed(4)
    net = timm.create_model("test_vit.r160_in1k").eval()
    state = net.state_dict()
    change(state)
    save_file(state, put(cache, "timm/test_vit.r160_in1k") / "model.safetensors")
    return net


# The hub


def test_a_repository_of_transformers_is_loaded_from_the_cache(cache: Path) -> None:
    net = put_vit(cache, {**SEES, "size": {"height": 32, "width": 32}})
    model = amb.load_model("hf/someone/small")
    images = torch.rand(2, 3, 32, 32)
    seen = (images - torch.tensor([0.1, 0.2, 0.3]).view(3, 1, 1)) / torch.tensor([0.4, 0.5, 0.6]).view(3, 1, 1)
    with torch.no_grad():
        torch.testing.assert_close(model.features(images), net(seen).pooler_output, rtol=1e-5, atol=1e-5)
    assert model.digest() == amb.load_model("hf/someone/small").digest() == HfLoader().digest("someone/small")
    assert model.ref == "hf/someone/small"


def test_the_size_of_images_is_the_processors_where_the_network_takes_any(cache: Path) -> None:
    net = put_vit(cache, {**SEES, "crop_size": {"height": 24, "width": 24}}, "dinov2", mlp_ratio=2)
    model = amb.load_model("hf/someone/small")
    assert model.backbone.image_size == 24
    assert model.facts().n_tokens == 1 + 9
    blank = torch.full((1, 3, 24, 24), 0.5)
    seen = (blank - torch.tensor([0.1, 0.2, 0.3]).view(3, 1, 1)) / torch.tensor([0.4, 0.5, 0.6]).view(3, 1, 1)
    with torch.no_grad():
        torch.testing.assert_close(model.tokens(blank), net(seen).last_hidden_state, rtol=1e-5, atol=1e-5)


def test_a_revision_is_a_version_of_its_own(cache: Path) -> None:
    put_vit(cache, SEES)
    with pytest.raises(MissingError, match="--revision v2"):
        amb.load_model("hf/someone/small@v2")
    put(cache, "someone/small", "v2")
    assert amb.load_model("hf/someone/small@v2").digest() == amb.load_model("hf/someone/small").digest()


def test_a_timm_model_is_loaded_from_the_cache_without_its_classifier(cache: Path) -> None:
    net: Any = put_timm(cache)
    model = amb.load_model("timm/test_vit.r160_in1k")
    images = torch.rand(2, 3, 160, 160)
    with torch.no_grad():
        features = net.forward_head(net.forward_features((images - 0.5) / 0.5), pre_logits=True)
        torch.testing.assert_close(model.features(images), features, rtol=1e-5, atol=1e-5)
    assert TimmLoader().skeleton("test_vit.r160_in1k").facts()._replace(ref="") == model.facts()._replace(ref="")


def test_an_open_clip_tower_comes_out_of_the_whole_model(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from open_clip.model import CLIP

    monkeypatch.setattr(catalogue, "open_clip_settings", lambda _: {"embed_dim": 12, "vision_cfg": TOWER})
    text = {"context_length": 4, "vocab_size": 9, "width": 8, "heads": 2, "layers": 1}
    whole = CLIP(12, TOWER, text, quick_gelu=True).eval()
    state = {name: each.half().contiguous() for name, each in whole.state_dict().items()}  # as OpenAI's are stored
    whole.load_state_dict(state)
    save_file(state, put(cache, "timm/vit_large_patch14_clip_224.openai") / "open_clip_model.safetensors")
    model = amb.load_model("open_clip/ViT-L-14/openai")
    images = torch.rand(2, 3, 32, 32)
    mean = torch.tensor([0.48145466, 0.4578275, 0.40821073]).view(3, 1, 1)
    std = torch.tensor([0.26862954, 0.26130258, 0.27577711]).view(3, 1, 1)
    with torch.no_grad():
        torch.testing.assert_close(
            model.features(images), whole.encode_image((images - mean) / std), rtol=1e-5, atol=1e-5
        )


def test_weights_on_the_hub_that_are_no_numbers_are_refused(cache: Path) -> None:
    put_timm(cache, lambda state: state["blocks.1.mlp.fc1.weight"].view(-1)[5:6].fill_(math.nan))
    with pytest.raises(CheckpointError, match=r"not finite. First: backbone.net.blocks.1.mlp.fc1.weight"):
        amb.load_model("timm/test_vit.r160_in1k")


def test_weights_on_the_hub_of_another_form_are_refused(cache: Path) -> None:
    put_timm(cache, lambda state: state.update({"blocks.0.mlp.fc1.weight": torch.zeros(3, 4)}))
    with pytest.raises(CheckpointError, match=r"in 1 tensors. First: blocks.0.mlp.fc1.weight: file has \(3, 4\), arch"):
        amb.load_model("timm/test_vit.r160_in1k")
    put_vit(cache, SEES)
    config = cache / "models--someone--small" / "snapshots" / ("0" * 40) / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "hidden_size": 8}))
    with pytest.raises(CheckpointError, match=r"First: .*file has \(.*, architecture has \("):
        amb.load_model("hf/someone/small")


def test_a_repository_of_another_kind_is_refused_with_what_is_loaded(cache: Path) -> None:
    put_vit(cache, SEES)
    config = cache / "models--someone--small" / "snapshots" / ("0" * 40) / "config.json"
    config.write_text(json.dumps({"model_type": "llama", "auto_map": {"AutoModel": "evil.Model"}}))
    with pytest.raises(CheckpointError, match="is of type 'llama', which amb does not load. It loads beit, "):
        amb.load_model("hf/someone/small")
    config.write_text("[")
    with pytest.raises(CheckpointError, match=r"config.json of hf/someone/small cannot be read"):
        amb.load_model("hf/someone/small")


def put_config(cache: Path, config: bytes | dict[str, Any]) -> None:
    """A repository whose configuration may be anything."""
    folder = put(cache, "someone/small")
    (folder / "config.json").write_bytes(config if isinstance(config, bytes) else json.dumps(config).encode())
    (folder / "preprocessor_config.json").write_text("{}")
    save_file({"a": torch.zeros(3)}, folder / "model.safetensors")


DINO = {**SMALL, "model_type": "dinov2"}


@pytest.mark.parametrize(
    ("config", "complaint"),
    [
        ({**DINO, "num_hidden_layers": 65536}, "describes 65,536 blocks"),
        ({**DINO, "hidden_size": 65536}, r"describes a network of [\d,]+ numbers or more"),
        ({**DINO, "image_size": 65536}, "takes images of 65,536 pixels"),
        ({**DINO, "model_type": "resnet", "hidden_sizes": [65536] * 4}, "describes a network of"),
        ({**DINO, "hidden_act": "gelu_fast"}, "sets hidden_act to gelu_fast, which amb does not load"),
        ({**DINO, "hidden_size": 10**9}, "sets hidden_size to 1000000000, which amb does not load"),
        ({"model_type": ["dinov2"]}, "is of type"),
        (b'{"a":' * 10**5, "nested more than 64 deep"),
        (b"{}" + b" " * 2**21, "larger than 1,048,576 bytes"),
        (b"[]", "no JSON object"),
    ],
)
def test_a_configuration_is_weighed_before_it_is_believed(
    config: bytes | dict[str, Any], complaint: str, cache: Path
) -> None:
    put_config(cache, config)
    for read in (amb.load_model, lambda ref: load_skeleton(ref, manager().registry)):
        begun = time.perf_counter()
        with pytest.raises(CheckpointError, match=complaint) as caught:
            read("hf/someone/small")
        assert time.perf_counter() - begun < 10  # a busy machine; it takes milliseconds
        assert "\n" not in str(caught.value)


def test_a_lost_activation_is_said_where_the_origin_is_known(cache: Path, caplog: pytest.LogCaptureFixture) -> None:
    tower = {**SMALL, "hidden_act": "gelu"}
    put_config(cache, {"model_type": "clip", "vision_config": tower, "_name_or_path": "openai/clip-vit-base-patch32"})
    load_skeleton("hf/someone/small", manager().registry)
    assert "OpenAI trained these weights with quick_gelu" in caplog.text


def test_timms_other_activation_is_said(caplog: pytest.LogCaptureFixture) -> None:
    assert catalogue.find_quick_name("vit_base_patch32_clip_224.openai") == "vit_base_patch32_clip_quickgelu_224.openai"
    assert catalogue.find_quick_name("vit_base_patch32_clip_224.laion2b") is None
    assert catalogue.find_quick_name("vit_base_patch32_clip_quickgelu_224.openai") is None
    with torch.device("meta"):
        TimmLoader().skeleton("vit_base_patch32_clip_224.metaclip_400m")
    assert "timm/vit_base_patch32_clip_quickgelu_224.metaclip_400m has what they were trained with" in caplog.text


@pytest.mark.parametrize("rest", ["../../etc", "a/b/c", "a//b", ".hidden", "a/b@", "a/b@../../x", "a b", "/etc/passwd"])
def test_a_reference_does_not_lead_out_of_the_cache(rest: str) -> None:
    with pytest.raises(CheckpointError, match="names no repository of the hub"):
        amb.load_model(f"hf/{rest}")


def test_what_has_to_be_fetched_is_known_beforehand(cache: Path) -> None:
    put_timm(cache)
    (here,) = TimmLoader().fetches("test_vit.r160_in1k")
    assert here.cached
    assert here.size == (put(cache, "timm/test_vit.r160_in1k") / "model.safetensors").stat().st_size
    assert [(each.cached, each.size) for each in HfLoader().fetches("facebook/dinov2-large")] == [(False, None)] * 3
    (away,) = OpenClipLoader().fetches("ViT-L-14/openai")
    assert away.source == "hf download timm/vit_large_patch14_clip_224.openai open_clip_model.safetensors"


@pytest.mark.parametrize(("ref", "command"), NOT_HERE)
def test_a_run_without_a_network_says_at_once_what_to_fetch(ref: str, command: str, tmp_path: Path) -> None:
    from huggingface_hub import constants

    asked = ["run", "--offline", "--method", "activemark", "--attack", "prune40", "--model", ref]
    clean = {**os.environ, "HF_HOME": str(tmp_path / "empty")}
    began = time.perf_counter()
    done = subprocess.run([sys.executable, "-m", "amb", *asked], capture_output=True, text=True, env=clean, check=False)
    print(f"{ref}: {time.perf_counter() - began:.1f} s")
    assert done.returncode == 3
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert f"`hf download {command}`" in line
    assert str(tmp_path / "empty" / "hub") in line
    assert constants.HF_HUB_CACHE not in line


def test_a_missing_weight_is_found_missing_without_a_heavy_library() -> None:
    code = (
        "import sys, os; os.environ['AMB_OFFLINE'] = '1'\n"
        "import amb; from amb.models.references import load_skeleton, require_models; from amb.plugin.manager import manager\n"
        f"for ref in {[ref for ref, _ in NOT_HERE]}:\n"
        "    try: require_models([ref], manager().registry)\n"
        "    except amb.MissingError: print('missing')\n"
        "print({'torch', 'timm', 'open_clip', 'transformers', 'torchvision', 'PIL'} & set(sys.modules))"
    )
    clean = {**os.environ, "HF_HOME": str(Path.cwd())}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=clean, check=True)
    assert done.stdout.split() == ["missing", "missing", "missing", "set()"]


def test_a_hub_that_cannot_be_reached_is_one_line(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    def unreachable(*_: Any, **__: Any) -> None:
        raise ConnectionError("no route\nto host")

    monkeypatch.delenv("AMB_OFFLINE")
    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", unreachable)
    with pytest.raises(MissingError, match=r"the hub cannot be reached \(ConnectionError\).*`hf download") as caught:
        amb.load_model("hf/facebook/dinov2-large")
    assert "\n" not in str(caught.value)


def test_models_that_are_here_need_no_network(cache: Path) -> None:
    put_timm(cache)
    require_models(["timm/test_vit.r160_in1k", "tiny/owner"], manager().registry)


# Names


@pytest.mark.parametrize(
    ("ref", "near"),
    [
        ("timm/vit_larg_patch14_dinov2", "Did you mean vit_large_patch14_dinov2"),
        ("timm/vit_large_patch14_dinov2.lvd142", "Did you mean vit_large_patch14_dinov2.lvd142m?"),
        ("open_clip/ViT-L-15/openai", "Did you mean .*ViT-L-14"),
        ("open_clip/ViT-L-14/opena", "Did you mean openai?"),
        ("open_clip/ViT-L-14", "No tag of open_clip/ViT-L-14"),
    ],
)
def test_an_unknown_name_gets_near_ones(ref: str, near: str) -> None:
    with pytest.raises(UnknownNameError, match=near):
        amb.load_model(ref)


def test_what_timm_has_is_read_from_its_text_as_it_says_itself() -> None:
    import timm

    wrong = []
    for name in sorted({*timm.list_models(), *timm.list_models(pretrained=True)}):
        said: Any = timm.get_pretrained_cfg(name)
        ours = catalogue.timm_weights(name)
        theirs = (said.hf_hub_id, catalogue.safe_name(said.hf_hub_filename or "pytorch_model.bin")) if said else None
        trained = bool(said and said.has_weights) and not name.startswith(COMPUTED)
        if (ours is not None) != trained or (ours and (ours.repo, ours.file) != theirs):
            wrong.append(name)
    assert wrong == []


def test_what_open_clip_has_is_read_from_its_text_as_it_says_itself() -> None:
    from open_clip.pretrained import get_pretrained_cfg, list_pretrained

    assert len(list_pretrained()) > 100
    for name, tag in list_pretrained():
        said, ours = get_pretrained_cfg(name, tag), catalogue.open_clip_tags(name)[tag]
        assert ours.repo == (said.get("hf_hub", "").rpartition("/")[0] or None)
        assert (ours.url, ours.quick_gelu) == (said.get("url", ""), bool(said.get("quick_gelu")))


@pytest.mark.parametrize(
    ("repository", "millions"),
    [
        ("facebook/dinov2-large", 304.4),
        ("facebook/dinov2-with-registers-large", 304.4),
        ("facebook/vit-mae-base", 85.8),
        ("google/siglip-base-patch16-224", 92.9),
        ("microsoft/beit-base-patch16-224", 85.8),
        ("microsoft/resnet-50", 23.5),
        ("openai/clip-vit-large-patch14", 304.0),
    ],
)
def test_known_repositories_have_the_size_that_their_authors_state(repository: str, millions: float) -> None:
    with torch.device("meta"):
        model = HfLoader().skeleton(repository)
    assert sum(each.numel() for each in model.backbone.parameters()) / 1e6 == pytest.approx(millions, rel=0.01)


def test_an_outline_of_another_repository_needs_its_configuration(cache: Path) -> None:
    with pytest.raises(MissingError, match="`hf download someone/small config.json preprocessor_config.json`"):
        HfLoader().skeleton("someone/small")
    put_vit(cache, SEES)
    assert HfLoader().skeleton("someone/small").n_blocks == 2


@pytest.mark.parametrize(
    ("name", "mean", "size"),
    [
        ("vit_base_patch32_clip_224.openai", 0.48145466, 224),
        ("vit_small_patch14_dinov2.lvd142m", 0.485, 518),
        ("vit_base_patch16_siglip_224.webli", 0.5, 224),
    ],
)
def test_images_are_read_as_the_library_says(name: str, mean: float, size: int) -> None:
    with torch.device("meta"):
        backbone = TimmLoader().skeleton(name).backbone
    assert (backbone.mean[0], backbone.image_size) == (mean, size)


# Cards and files


def write(stem: Path, card: dict[str, Any], state: dict[str, torch.Tensor] | None = None) -> str:
    stem.with_suffix(".json").write_text(json.dumps(card))
    if state is not None:
        save_file(state, stem.with_suffix(".safetensors"))
    return f"file/{stem}"


HF_CARD = {"loader": "hf", "model_type": "vit", "config": SMALL}
CLIP_CARD = {"loader": "open_clip", "embed_dim": 12, "vision": TOWER}
TIMM_CARD = {"loader": "timm", "name": "vit_tiny_patch16_224", "options": {}}


@pytest.mark.parametrize(
    "architecture",
    [
        {**HF_CARD, "model_type": "llama"},
        {**HF_CARD, "model_type": "../vit"},
        {**HF_CARD, "model_type": ["vit"]},
        {**HF_CARD, "config": {**SMALL, "_name_or_path": "someone/small"}},
        {**HF_CARD, "config": {**SMALL, "auto_map": {"AutoModel": "evil.Model"}}},
        {**HF_CARD, "config": {**SMALL, "hidden_act": "os.system"}},
        {**HF_CARD, "config": {**SMALL, "hidden_size": "/etc/passwd"}},
        {**HF_CARD, "config": {**SMALL, "hidden_size": 10**9}},
        {**HF_CARD, "config": {**SMALL, "hidden_size": math.nan}},
        {**HF_CARD, "config": {**SMALL, "num_attention_heads": 3}},
        {**HF_CARD, "config": []},
        {**HF_CARD, "repo": "someone/small"},
        {**HF_CARD, "mean": "x"},
        {**HF_CARD, "std": [1, 0, 1]},
        {"loader": "hf", "model_type": "resnet", "config": {}},
        {**CLIP_CARD, "vision": {**TOWER, "timm_model_name": "hf-hub:someone/small"}},
        {**CLIP_CARD, "vision": {**TOWER, "timm_model_name": ["test_vit"]}},
        {**CLIP_CARD, "vision": {"timm_model_name": "test_vit", "timm_model_pretrained": True}},
        {**CLIP_CARD, "vision": {**TOWER, "act_kwargs": {"a": 1}}},
        {**CLIP_CARD, "vision": {**TOWER, "width": "http://evil"}},
        {**CLIP_CARD, "vision": {**TOWER, "head_width": 0}},
        {**CLIP_CARD, "embed_dim": "many"},
        {**CLIP_CARD, "pretrained": "/etc/passwd"},
        {**TIMM_CARD, "options": {"checkpoint_path": "/etc/passwd"}},
        {**TIMM_CARD, "options": {"pretrained_cfg": "hf-hub:someone/small"}},
        {**TIMM_CARD, "options": {"embed_dim": 10**9}},
        {**TIMM_CARD, "image_size": 10**9},
    ],
)
def test_a_strangers_architecture_is_refused(architecture: dict[str, Any], tmp_path: Path) -> None:
    ref = write(tmp_path / "m", {"architecture": architecture, "weights": "library"}, {"a": torch.zeros(1)})
    with pytest.raises((CheckpointError, UnknownNameError)) as caught:
        amb.load_model(ref)
    assert "\n" not in str(caught.value)


def test_a_card_of_a_library_may_name_a_digest_that_is_checked(tmp_path: Path) -> None:
    model = amb.build_model(HF_CARD)
    state = {name.removeprefix("net."): each for name, each in model.backbone.state_dict().items()}
    card = {"architecture": HF_CARD, "weights": "library"}
    loaded = amb.load_model(write(tmp_path / "m", card, state))
    assert amb.load_model(write(tmp_path / "m", {**card, "digest": loaded.digest()})).digest() == loaded.digest()
    with pytest.raises(CheckpointError, match="does not have the digest on its card"):
        amb.load_model(write(tmp_path / "m", {**card, "digest": "0" * 32}))


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"weights": "amb"}, "it has no digest"),
        ({"weights": "pickle"}, "is not a model card"),
        ({"heads": {"classification": {"n_classes": 3}}}, "without heads and edits"),
        (
            {"architecture": {**HF_CARD, "edits": [{"name": "keep-blocks", "parameters": {"n": 1}}]}},
            "without heads and",
        ),
        ({"architecture": {"loader": "toy", "dim": 16, "depth": 2, "registers": 0}}, "does not read weight files"),
    ],
)
def test_a_card_of_a_library_is_refused(changes: dict[str, Any], complaint: str, tmp_path: Path) -> None:
    card = {"architecture": HF_CARD, "weights": "library", **changes}
    with pytest.raises(CheckpointError, match=complaint):
        amb.load_model(write(tmp_path / "m", card, {"a": torch.zeros(1)}))


@pytest.mark.parametrize("architecture", [HF_CARD, CLIP_CARD, {**TIMM_CARD, "name": "test_vit"}])
def test_a_file_that_lacks_weights_is_refused_with_the_first(architecture: dict[str, Any], tmp_path: Path) -> None:
    ref = write(tmp_path / "m", {"architecture": architecture, "weights": "library"}, {"head.weight": torch.zeros(1)})
    with pytest.raises(CheckpointError, match=r"does not fit its network in \d+ tensors. First: .*file has nothing"):
        amb.load_model(ref)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_file_with_weights_that_are_not_finite_is_refused(value: float, tmp_path: Path) -> None:
    model = toy_model()
    model.backbone.layers[2].linear1.weight.data[3, 4] = value  # type: ignore[index, union-attr]
    save_checkpoint(model, tmp_path / "m")
    with pytest.raises(CheckpointError, match=r"not finite. First: backbone.layers.2.linear1.weight"):
        amb.load_model(f"file/{tmp_path / 'm'}")


def test_the_store_keeps_what_an_attack_has_broken(tmp_path: Path) -> None:
    model = toy_model()
    model.backbone.norm.weight.data[0] = math.inf  # type: ignore[union-attr]
    save_checkpoint(model, tmp_path / "m")
    assert amb.load_checkpoint(tmp_path / "m", "m", amb.build_model).digest() == model.digest()


def test_a_folder_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="is a folder, and not of one model"):
        amb.load_model(f"file/{tmp_path}")


def test_weights_without_a_card_say_what_belongs_beside_them(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(1)}, tmp_path / "m.safetensors")
    with pytest.raises(MissingError, match=r"m.json does not exist"):
        amb.load_model(f"file/{tmp_path / 'm'}.safetensors")


def test_the_outline_of_a_file_needs_no_weights(tmp_path: Path) -> None:
    from amb_models.files import FileLoader

    write(tmp_path / "m", {"architecture": HF_CARD, "weights": "library"})
    assert FileLoader().skeleton(str(tmp_path / "m")).n_blocks == 2


def test_every_known_repository_is_one_that_a_card_could_describe() -> None:
    for architecture in known.REPOSITORIES.values():
        assert known.hf_architecture(architecture)["model_type"] in known.MODEL_TYPES
