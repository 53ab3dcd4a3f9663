"""Checkpoints as people have them: each form loads as the library's own model, or is refused with the true reason."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import amb
from amb.errors import CheckpointError, MissingError

pytestmark = pytest.mark.usefixtures("manager")

VIT = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 3, "num_heads": 4}
NO_CLASS = {"class_token": False, "global_pool": "avg"}
HF = {
    "hidden_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "image_size": 32,
    "patch_size": 8,
}
TOWER = {"layers": 2, "width": 16, "head_width": 8, "patch_size": 8, "image_size": 32}
State = dict[str, Tensor]


@pytest.fixture(autouse=True)
def notes(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.WARNING, "amb.models")
    return caplog


def shake(net: nn.Module, seed: int) -> Any:
    """Random weights, also where a library begins with 0 or 1."""
    generator = torch.Generator().manual_seed(seed)
    for weight in net.parameters():
        weight.data.normal_(std=0.2, generator=generator)
    return net.eval()


@cache
def vit(seed: int = 0, **options: Any) -> Any:
    import timm

    return shake(timm.create_model("vit_tiny_patch16_224", num_classes=0, **{**VIT, **options}), seed)


def state_of(net: nn.Module) -> State:
    return {name: each.clone() for name, each in net.state_dict().items()}


def under(prefix: str, state: Mapping[str, Tensor]) -> State:
    return {prefix + name: each.clone() for name, each in state.items()}


def renamed(state: State, *changes: tuple[str, Any]) -> State:
    for old, new in changes:
        state = {re.sub(old, new, name): each for name, each in state.items()}
    return state


@cache
def pruned() -> tuple[State, Any]:
    """What torch's pruning leaves in a state, and the network that it is."""
    from torch.nn.utils import prune

    net = shake(vit.__wrapped__(), 0)
    for module in net.modules():
        if isinstance(module, nn.Linear):
            prune.l1_unstructured(module, "weight", 0.4)
    return state_of(net), net


def write(stem: Path, state: State | None, architecture: Mapping[str, Any]) -> str:
    if state is not None:
        save_file({name: each.clone().contiguous() for name, each in state.items()}, f"{stem}.safetensors")
    Path(f"{stem}.json").write_text(json.dumps({"architecture": architecture, "weights": "library"}))
    return f"file/{stem}"


def timm_card(**options: Any) -> dict[str, Any]:
    return {"loader": "timm", "name": "vit_tiny_patch16_224", "options": {**VIT, **options}}


def hf_card(**config: Any) -> dict[str, Any]:
    half = [0.5] * 3
    return {"loader": "hf", "model_type": "vit", "config": {**HF, **config}, "mean": half, "std": half}


IMAGES = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def close(model: amb.VisionModel, wanted: Tensor) -> None:
    with torch.no_grad():
        torch.testing.assert_close(model.features(IMAGES), wanted, rtol=1e-5, atol=1e-5)


def by_library(net: Any) -> Tensor:
    with torch.no_grad():
        seen = (IMAGES - 0.5) / 0.5
        return net.vit(seen).last_hidden_state[:, 0] if hasattr(net, "vit") else net(seen)


class Form(NamedTuple):
    """A file, and the network that it holds; `says` is in the notes."""

    state: State
    net: Any
    says: str = ""
    part: str = ""
    options: Mapping[str, Any] = {}


def chunked(start: int) -> State:
    """Blocks in chunks of two, each counted in all (as DINOv2 saves them) or inside its chunk."""
    inside = {0: lambda n: n, 1: lambda n: n % 2}[start]
    return renamed(state_of(vit()), (r"^blocks\.(\d+)", lambda m: f"blocks.{int(m[1]) // 2}.{inside(int(m[1]))}"))


def ours() -> State:
    return state_of(vit())


def other() -> State:
    return state_of(vit(1))


def with_ema(prefix: str = "", ema: str = "ema.") -> State:
    return {**under(prefix, ours()), **under(ema, other())}


def distilled() -> State:
    """A teacher and a student with the heads of DINO."""
    heads = {"teacher.head.mlp.0.weight": torch.ones(2, 2), "student.head.last_layer.weight_g": torch.ones(2)}
    return {**under("student.backbone.", other()), **under("teacher.backbone.", ours()), **heads}


def with_head() -> State:
    return {**ours(), "head.weight": torch.ones(5, 32), "head.bias": torch.ones(5)}


def with_old_norms() -> State:
    return renamed(ours(), (r"(norm\d?)\.weight", r"\1.gamma"), (r"(norm\d?)\.bias", r"\1.beta"))


def wrapped(prefix: str) -> Form:
    return Form(under(prefix, ours()), vit(), f"'{prefix}' was taken off the names of 42 tensors")


WRAPPERS = (
    *("module.", "_orig_mod.", "model.", "backbone.", "teacher.backbone.", "module._orig_mod."),
    *("module.module.model.backbone.", "anything.else."),
)
FORMS: dict[str, Callable[[], Form]] = {
    "plain": lambda: Form(ours(), vit()),
    "a classifier": lambda: Form(with_head(), vit()),
    "a wrapped classifier": lambda: Form(under("module.", with_head()), vit(), "'module.'"),
    **{prefix: partial(wrapped, prefix) for prefix in WRAPPERS},
    "beside a neck": lambda: Form(
        {**under("backbone.", ours()), "neck.0.weight": torch.ones(2, 2)}, vit(), "Left out: 1 tensor beside these"
    ),
    "raw, not EMA": lambda: Form(with_ema(), vit(), "Left out: 42", "."),
    "EMA, not raw": lambda: Form(with_ema(), vit(1), "'ema.'", "ema"),
    "model": lambda: Form(with_ema("model.", "model.ema."), vit(), "'model.'", "model"),
    "EMA in a module": lambda: Form(with_ema("a.", "ema.module."), vit(1), "'ema.module.'", "ema"),
    "teacher": lambda: Form(distilled(), vit(), "'teacher.backbone.'", "teacher"),
    "student": lambda: Form(distilled(), vit(1), "'student.backbone.'", "student.backbone"),
    "pruned": lambda: Form(pruned()[0], pruned()[1], "Pruning masks were multiplied into 12 tensors"),
    "pruned in a module": lambda: Form(under("module.", pruned()[0]), pruned()[1], "Pruning masks"),
    "gamma and beta": lambda: Form(with_old_norms(), vit(), "Gamma and beta were read"),
    "chunks": lambda: Form(chunked(0), vit(), "Blocks that lie in chunks were counted through: 3"),
    "chunks that begin anew": lambda: Form(chunked(1), vit(), "counted through: 3"),
    "a teacher in chunks": lambda: Form(under("teacher.backbone.", chunked(0)), vit(), "counted through: 3"),
    "no CLS": lambda: Form(state_of(vit(**NO_CLASS)), vit(**NO_CLASS), options=NO_CLASS),
}


@pytest.mark.parametrize("name", FORMS)
def test_a_form_is_the_librarys_own_model(name: str, notes: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    form = FORMS[name]()
    ref = write(tmp_path / "m", form.state, timm_card(**form.options))
    close(amb.load_model(ref + (f":weights={form.part}" if form.part else "")), by_library(form.net))
    assert form.says in notes.text
    assert bool(form.says) == ("note:" in notes.text)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_the_librarys_own(dtype: torch.dtype, tmp_path: Path) -> None:
    import timm

    state = {name: each.to(dtype) for name, each in state_of(vit()).items()}
    ref = write(tmp_path / "m", state, timm_card())
    net = timm.create_model(
        "vit_tiny_patch16_224", num_classes=0, checkpoint_path=str(tmp_path / "m.safetensors"), **VIT
    )
    close(amb.load_model(ref), by_library(net.eval()))


def lora(base: bool) -> State:
    """As peft names them: changes of three layers, with or without what they change."""
    changes = {f"blocks.{n}.attn.qkv.lora_{ab}.weight": torch.ones(2, 32) for n in range(3) for ab in "AB"}
    whole = renamed(state_of(vit()), (r"qkv\.", "qkv.base_layer.")) if base else {}
    return under("base_model.model.", {**whole, **changes})


def changed(name: str, dtype: torch.dtype) -> State:
    return {key: each.to(dtype) if key == name else each for key, each in ours().items()}


def without(name: str) -> State:
    return {key: each for key, each in ours().items() if key != name}


FC = "blocks.0.mlp.fc1"
PACKED = {f"{FC}._packed_params._packed_params": torch.zeros(4, dtype=torch.int8)}
REFUSED: dict[str, tuple[Callable[[], State], str]] = {
    "raw and EMA": (with_ema, r"2 sets .* without a prefix and under 'ema.'. .*:weights=\.,"),
    "student and teacher": (
        distilled,
        "2 sets .* under 'student.backbone.' and under 'teacher.backbone.'.*weights=student.backbone, or with",
    ),
    "three": (
        lambda: {**under("a.", ours()), **under("b.", ours()), **under("c.", ours())},
        "3 sets of weights of this network: under 'a.', under 'b.' and under 'c.'",
    ),
    "adapter": (lambda: lora(base=False), "is an adapter alone.*merge_and_unload"),
    "adapter beside weights": (lambda: lora(base=True), "has an adapter beside its weights.*merge_and_unload"),
    "int8": (lambda: changed(f"{FC}.weight", torch.int8), "holds quantised weights .*int8"),
    "float8": (lambda: changed(f"{FC}.weight", torch.float8_e4m3fn), "holds quantised weights .*float8"),
    "whole numbers": (lambda: changed("norm.bias", torch.int64), "holds quantised weights .norm.bias, int64"),
    "packed": (lambda: {**ours(), **PACKED}, "holds quantised weights"),
    "spectral": (
        lambda: renamed(ours(), (f"{FC}.weight", f"{FC}.weight_orig")) | {f"{FC}.weight_u": torch.ones(128)},
        "keeps a weight in parts .*weight_orig",
    ),
    "parametrised": (
        lambda: renamed(ours(), (f"{FC}.weight", f"{FC}.parametrizations.weight.original")),
        "keeps a weight in parts .*original",
    ),
    "wrapped inside": (
        lambda: renamed(ours(), (r"blocks\.0\.", "blocks.0.module.")),
        "does not fit its network in 24 tensors",
    ),
    "wrapped, other shapes": (
        lambda: under("module.", state_of(vit(embed_dim=48))),
        r"First: blocks.0.attn.proj.bias: file has \(48,\), architecture has \(32,\)",
    ),
    "a block more": (lambda: state_of(vit(depth=4)), "does not fit its network in 12 tensors"),
    "a norm less": (lambda: without("norm.weight"), "norm.weight: file has nothing"),
    "no CLS": (
        lambda: state_of(vit(**NO_CLASS)),
        'positions for 16 tokens and no cls_token.*"class_token": false',
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_such_network_says_why(name: str, tmp_path: Path) -> None:
    make, says = REFUSED[name]
    with pytest.raises(CheckpointError, match=says) as caught:
        amb.load_model(write(tmp_path / "m", make(), timm_card()))
    assert "\n" not in str(caught.value)


def test_weights_that_are_not_there_cannot_be_asked_for(tmp_path: Path) -> None:
    ref = write(tmp_path / "m", state_of(vit()), timm_card())
    with pytest.raises(CheckpointError, match="no weights of this network under 'teacher'"):
        amb.load_model(f"{ref}:weights=teacher")
    with pytest.raises(CheckpointError, match="says weights= twice, or nothing behind it"):
        amb.load_model(f"{ref}:weights=")
    with pytest.raises(CheckpointError, match="says weights= twice"):
        amb.load_model(f"{ref}:weights=a:weights=b")


@pytest.mark.parametrize(("options", "what"), [({"img_size": 64}, "pos_embed"), ({"patch_size": 16}, "patch_embed")])
def test_what_a_library_interpolates_is_said(
    options: dict[str, int], what: str, notes: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    amb.load_model(write(tmp_path / "m", state_of(vit(**options)), timm_card()))
    assert re.search(rf"{what}\S* was interpolated, from \(", notes.text)


# transformers and open_clip


@cache
def classifier() -> Any:
    import transformers

    return shake(transformers.ViTForImageClassification(transformers.ViTConfig(**HF)), 0)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> State:
    """The tensors of a file that transformers has written."""
    folder = tmp_path_factory.mktemp("hf")
    classifier().save_pretrained(folder)
    return load_file(folder / "model.safetensors")


@pytest.mark.parametrize("prefix", ["", "model.", "module._orig_mod.", "teacher.backbone."])
def test_a_wrapped_model_of_transformers_is_the_librarys_own(prefix: str, saved: State, tmp_path: Path) -> None:
    wanted = by_library(classifier())
    close(amb.load_model(write(tmp_path / "m", under(prefix, saved), hf_card())), wanted)
    old = renamed(saved, (r"(layernorm\w*)\.weight", r"\1.gamma"))
    close(amb.load_model(write(tmp_path / "n", under(prefix, old), hf_card())), wanted)
    both = {**under(f"a.{prefix}", saved), **{name: each + 1 for name, each in under(f"b.{prefix}", saved).items()}}
    close(amb.load_model(write(tmp_path / "o", both, hf_card()) + ":weights=a"), wanted)


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"num_hidden_layers": 2}, "has 16 tensors more of its network than the architecture. First: vit.layers.2"),
        ({"qkv_bias": False}, "has 9 tensors more of its network than the architecture"),
    ],
)
def test_more_than_the_architecture_has_is_not_dropped(
    config: dict[str, Any], says: str, saved: State, tmp_path: Path
) -> None:
    with pytest.raises(CheckpointError, match=says):
        amb.load_model(write(tmp_path / "m", saved, hf_card(**config)))


def test_codes_are_not_read_as_numbers(saved: State, tmp_path: Path) -> None:
    state = {name: each.to(torch.int8) if "query.weight" in name else each for name, each in saved.items()}
    with pytest.raises(CheckpointError, match="holds quantised weights"):
        amb.load_model(write(tmp_path / "m", state, hf_card()))


def test_a_tensor_that_kept_its_initial_value_is_noticed(
    saved: State, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import transformers

    monkeypatch.setattr(transformers.ViTModel, "_keys_to_ignore_on_load_missing", ["layernorm"], raising=False)
    state = {name: each for name, each in saved.items() if not name.startswith("vit.layernorm.")}
    with pytest.raises(CheckpointError, match=r"left layernorm.weight of its network at its initial value"):
        amb.load_model(write(tmp_path / "m", state, hf_card()))


@pytest.mark.parametrize("prefix", ["", "module.", "state_dict.model."])
def test_a_wrapped_open_clip_is_the_librarys_own(prefix: str, tmp_path: Path) -> None:
    from open_clip.model import CLIP

    text = {"context_length": 4, "vocab_size": 9, "width": 16, "heads": 2, "layers": 2}  # as wide as the images'
    whole = shake(CLIP(12, TOWER, text, quick_gelu=True), 0)
    half = [0.5] * 3
    card = {"loader": "open_clip", "embed_dim": 12, "vision": TOWER, "quick_gelu": True, "mean": half, "std": half}
    with torch.no_grad():
        wanted = whole.encode_image((IMAGES - 0.5) / 0.5)
    close(amb.load_model(write(tmp_path / "m", under(prefix, state_of(whole)), card)), wanted)
    tower = state_of(whole.visual)
    close(amb.load_model(write(tmp_path / "n", under(prefix, tower), card)), wanted)


def test_a_card_that_lost_quick_gelu_is_said(notes: pytest.LogCaptureFixture) -> None:
    card = {"loader": "open_clip", "embed_dim": 12, "vision": TOWER}
    amb.build_model({**card, "quick_gelu": False})
    assert not notes.text
    amb.models.notes.say_once.cache_clear()
    amb.build_model(card)
    assert "does not say quick_gelu" in notes.text


# Shards


def write_shards(folder: Path, state: State, n: int = 3) -> Path:
    """As the libraries lay them out."""
    folder.mkdir(parents=True, exist_ok=True)
    places = {}
    for shard in range(n):
        file = f"m-{shard + 1:05d}-of-{n:05d}.safetensors"
        inside = {name: state[name].contiguous() for name in sorted(state)[shard::n]}
        save_file(inside, folder / file)
        places |= dict.fromkeys(inside, file)
    (folder / "m.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
    write(folder / "m", None, timm_card())
    return folder


def test_shards_are_read_by_their_index(tmp_path: Path) -> None:
    folder = write_shards(tmp_path, state_of(vit()))
    close(amb.load_model(f"file/{folder}/m"), by_library(vit()))
    close(amb.load_model(f"file/{folder}/m.safetensors.index.json"), by_library(vit()))


def test_shards_of_transformers_are_read(tmp_path: Path) -> None:
    classifier().save_pretrained(tmp_path, max_shard_size="8KB")
    assert len(list(tmp_path.glob("model-*-of-*.safetensors"))) > 2
    close(amb.load_model(write(tmp_path / "model", None, hf_card())), by_library(classifier()))


def test_a_stray_shard_is_left_out_and_said(notes: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    folder = write_shards(tmp_path, state_of(vit()))
    save_file({"norm.weight": torch.ones(32)}, folder / "m-00004-of-00004.safetensors")
    close(amb.load_model(f"file/{folder}/m"), by_library(vit()))
    assert "m-00004-of-00004.safetensors is left out" in notes.text


def test_a_shard_or_an_index_that_is_missing_is_named(tmp_path: Path) -> None:
    shard = write_shards(tmp_path, state_of(vit())) / "m-00002-of-00003.safetensors"
    shard.rename(tmp_path / "away")
    with pytest.raises(MissingError, match="m-00002-of-00003.safetensors does not exist"):
        amb.load_model(f"file/{tmp_path}/m")
    (tmp_path / "m.safetensors.index.json").unlink()
    with pytest.raises(MissingError, match=r"m.safetensors.index.json does not exist, and 2 shards"):
        amb.load_model(f"file/{tmp_path}/m")


def test_shards_of_two_versions_are_refused(tmp_path: Path) -> None:
    folder = write_shards(tmp_path, state_of(vit()))
    other = {name: each for name, each in state_of(vit(1)).items() if name.startswith("blocks.1")}
    save_file(other, folder / "m-00002-of-00003.safetensors")
    with pytest.raises(CheckpointError, match="disagree about 18 tensors"):
        amb.load_model(f"file/{folder}/m")


def test_one_file_and_shards_are_not_chosen_between(tmp_path: Path) -> None:
    folder = write_shards(tmp_path, state_of(vit()))
    write(folder / "m", state_of(vit(1)), timm_card())
    with pytest.raises(CheckpointError, match="both say what the weights are"):
        amb.load_model(f"file/{folder}/m")


@pytest.mark.parametrize(
    "file", ["../m.safetensors", "/etc/passwd", "a/b.safetensors", 3, None, "m.bin", "~.safetensors"]
)
def test_an_index_does_not_lead_out_of_its_folder(file: object, tmp_path: Path) -> None:
    write(tmp_path / "m", None, timm_card())
    (tmp_path / "m.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": file}}))
    with pytest.raises(CheckpointError, match="is no name of a safetensors file beside it"):
        amb.load_model(f"file/{tmp_path}/m")


@pytest.mark.parametrize("text", ["[]", "{}", "[" * 10**5, '{"weight_map": []}', "\0", '{"weight_map": {}}'])
def test_what_is_no_index_is_refused(text: str, tmp_path: Path) -> None:
    write(tmp_path / "m", None, timm_card())
    (tmp_path / "m.safetensors.index.json").write_text(text)
    with pytest.raises(CheckpointError, match="is not an index of shards"):
        amb.load_model(f"file/{tmp_path}/m")


def test_a_pointer_of_git_lfs_is_called_one(tmp_path: Path) -> None:
    ref = write(tmp_path / "m", None, timm_card())
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 343514764\n"
    (tmp_path / "m.safetensors").write_text(pointer)
    with pytest.raises(CheckpointError, match="is a Git LFS pointer of 74 bytes.*git lfs pull"):
        amb.load_model(ref)
