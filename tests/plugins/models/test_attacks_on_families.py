"""Attacks on the networks of open_clip and transformers: what they promise holds, or they say why they do not apply."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import amb
from amb.api.interfaces import Attack
from amb.api.vision import VisionModel
from amb.models.heads import HEADS
from amb.plugin.manager import Manager
from amb.testing import AttackContract, toy_context
from tests.plugins.models.test_families import BLOCKS
from tests.testing.test_contracts import REGISTRY, quick

pytestmark = pytest.mark.usefixtures("manager")

FORMS = ["open_clip CLIP", "hf DINOv2 registers", "hf CLIP", "hf BEiT"]
STRUCTURAL = [
    "reparametrize",
    "cut-blocks",
    "cut-rear",
    "cut-registers",
    "cut-resolution",
    "quantize-int8",
    "adaptive-erase",
]
"""Attacks that reach into a network, and so depend on how it is built; the others see weights alone."""
REWRITES = ["permute-neurons", "permute-heads", "fold-norms", "change-basis"]


def model_of(family: str) -> VisionModel:
    """A model with a head for the toy's three classes, its weights all random."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = amb.build_model(BLOCKS[family])
        for weight in model.parameters():
            weight.data.add_(0.05 * torch.randn(weight.shape))
        model.heads = torch.nn.ModuleDict({"classification": HEADS["classification"](model.backbone.dim, 3)})
    model.ref = family
    return model.eval()


class TestAttacks(AttackContract):
    @pytest.fixture(params=STRUCTURAL)
    def attack(self, request: pytest.FixtureRequest) -> Attack:
        attack: Attack = quick(REGISTRY.attacks, request.param)
        return attack

    @pytest.fixture(params=FORMS)
    def model(self, request: pytest.FixtureRequest, manager: Manager) -> VisionModel:
        return model_of(request.param)


PLAIN = [name for name in BLOCKS if "BEiT" not in name and "EVA" not in name]
"""Families whose blocks are maps that can be written anew."""


@pytest.mark.parametrize("rewrite", REWRITES)
@pytest.mark.parametrize("family", PLAIN)
def test_blocks_written_anew_are_the_same_function(family: str, rewrite: str, tmp_path: Path) -> None:
    attack: Attack = quick(REGISTRY.attacks, rewrite)
    model = model_of(family)
    assert attack.skip(model) is None
    twin = attack.apply(model, toy_context(tmp_path, roles=("attacker",)))
    side = model.backbone.image_size
    images = torch.rand(3, 3, side, side, generator=torch.Generator().manual_seed(9))
    with torch.no_grad():
        before, after = model.features(images), twin.features(images)
    assert ((before - after).abs().max() / before.abs().max()).item() < 1e-4
    assert twin.digest() != model.digest()


@pytest.mark.parametrize("family", ["timm BEiT", "timm EVA02", "hf BEiT"])
def test_blocks_that_are_more_than_their_maps_are_not_written_anew(family: str) -> None:
    attack: Attack = quick(REGISTRY.attacks, "permute-heads")
    assert "no plain transformer blocks" in str(attack.skip(model_of(family)))


@pytest.mark.parametrize(
    ("family", "n_layers"), [("hf DINOv2", 5), ("hf CLIP", 5), ("timm CLIP", 3), ("open_clip CLIP", 2)]
)
def test_lora_changes_the_linear_layers_of_any_library_by_a_low_rank(
    family: str, n_layers: int, tmp_path: Path
) -> None:
    model = model_of(family)
    (attack,) = REGISTRY.attack_chain("lora:rank=2,epochs=2,n_images=16,batch=8,lr=0.05")
    tuned = attack.apply(model, toy_context(tmp_path, roles=("attacker",)))
    before, after = model.backbone.state_dict(), tuned.backbone.state_dict()
    changed = [name for name in before if not torch.equal(before[name], after[name])]
    assert len(changed) == n_layers * model.n_blocks
    for name in changed:
        sizes = torch.linalg.svdvals((after[name] - before[name]).double())
        assert sizes[0] > 1e-4
        assert sizes[2] < 1e-4 * sizes[0], f"{name}: rank 2"


@pytest.mark.parametrize("family", ["timm BEiT", "timm EVA02"])
def test_attention_that_reads_past_its_layers_is_not_made_int8(family: str) -> None:
    attack: Attack = quick(REGISTRY.attacks, "quantize-int8")
    assert "past their layers" in str(attack.skip(model_of(family)))


@pytest.mark.parametrize(
    ("family", "share"), [("open_clip CLIP", 3 * 8 / (3 * 12 + 6.75)), ("hf CLIP", None), ("timm CLIP", None)]
)
def test_int8_says_what_stays_in_floating_point(family: str, share: float | None, tmp_path: Path) -> None:
    """Of three blocks of 32 x 32: the MLP's 8 are int8; 4 of the attention, 6 of the patches and 0.75 of proj are not."""
    attack: Attack = quick(REGISTRY.attacks, "quantize-int8")
    ctx = toy_context(tmp_path)
    attack.apply(model_of(family), ctx)
    expected = {} if share is None else {"int8_share": pytest.approx(share, abs=1e-4)}
    assert ctx.notes == expected


@pytest.mark.parametrize("name", ["prune-heads50", "prune-channels40"])
@pytest.mark.parametrize("family", ["open_clip CLIP", "hf DINOv2", "hf CLIP", "timm BEiT"])
def test_attacks_that_know_timms_names_alone_say_so(name: str, family: str) -> None:
    attack: Attack = quick(REGISTRY.attacks, name)
    assert "has no " in str(attack.skip(model_of(family)))


@pytest.mark.parametrize("family", ["timm DeiT distilled", "hf DeiT"])
def test_a_distillation_token_is_no_register(family: str) -> None:
    attack: Attack = quick(REGISTRY.attacks, "cut-registers")
    model = model_of(family)
    assert model.backbone.n_prefix == 2
    assert "has no register tokens" in str(attack.skip(model))


def test_without_registers_the_library_itself_gives_the_same(tmp_path: Path) -> None:
    attack: Attack = quick(REGISTRY.attacks, "cut-registers")
    model = model_of("hf DINOv2 registers")
    cut = attack.apply(model, toy_context(tmp_path, roles=("attacker",)))
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(9))
    mean, std = (torch.tensor(numbers).view(3, 1, 1) for numbers in (cut.backbone.mean, cut.backbone.std))
    with torch.no_grad():
        tokens = cut.tokens(images)
        assert tokens.shape[1] == 1 + 16
        given = cut.backbone.net((images - mean) / std).last_hidden_state
    torch.testing.assert_close(tokens, given, rtol=1e-5, atol=1e-5)
