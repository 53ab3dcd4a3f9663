"""Merging and noise, checked against closed forms on vectors and against the weights themselves."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from scipy.stats import kstest

import amb
from amb.api.vision import VisionModel
from amb.plugin.manager import Manager
from amb.testing import toy_context, toy_model


def merged(manager: Manager, spec: str, folder: Path, model: VisionModel, base: VisionModel) -> VisionModel:
    (attack,) = manager.registry.attack_chain(spec)
    return attack.apply(model, toy_context(folder, roles=("attacker",), base=base.copy))


def arc(length: float, degrees: float) -> torch.Tensor:
    angle = math.radians(degrees)
    return length * torch.tensor([math.cos(angle), math.sin(angle), 0.0])


@pytest.mark.parametrize("weight", [0.0, 0.25, 0.5, 1.0])
@pytest.mark.parametrize("degrees", [10.0, 90.0, 150.0])
def test_slerp_divides_the_angle_and_keeps_the_length(weight: float, degrees: float) -> None:
    from amb_attacks.merge_torch import slerp

    torch.testing.assert_close(slerp(arc(3, 20), arc(3, 20 + degrees), weight), arc(3, 20 + weight * degrees))


def test_slerp_of_what_has_no_angle_is_linear() -> None:
    from amb_attacks.merge_torch import slerp

    torch.testing.assert_close(slerp(arc(1, 0), arc(3, 0.5), 0.5), (arc(1, 0) + arc(3, 0.5)) / 2)
    torch.testing.assert_close(slerp(arc(1, 0), arc(1, 180), 0.25), arc(0.5, 0))
    torch.testing.assert_close(slerp(torch.zeros(2, 2), torch.ones(2, 2), 0.5), torch.full((2, 2), 0.5))


def test_linear_merging_is_the_weighted_mean(manager: Manager, tmp_path: Path) -> None:
    model, base = toy_model(1, n_classes=3), toy_model(2)
    for weight in (0.3, 1.0):
        result = merged(manager, f"merge:weight={weight}", tmp_path, model, base)
        for name, mine in model.backbone.state_dict().items():
            expected = mine + weight * (base.backbone.state_dict()[name] - mine)
            torch.testing.assert_close(result.backbone.state_dict()[name], expected)
        torch.testing.assert_close(result.heads.state_dict(), model.heads.state_dict())


def test_slerp_keeps_the_length_of_matrices(manager: Manager, tmp_path: Path) -> None:
    model, base = toy_model(1), toy_model(2)
    scale = base.backbone.patches.weight.norm() / model.backbone.patches.weight.norm()
    model.backbone.patches.weight.data *= scale
    result = merged(manager, "merge-base-slerp50", tmp_path, model, base).backbone.patches.weight
    linear = merged(manager, "merge-base50", tmp_path, model, base).backbone.patches.weight
    torch.testing.assert_close(result.norm(), model.backbone.patches.weight.norm())
    assert linear.norm() < 0.8 * result.norm()


def test_task_arithmetic_adds_what_the_other_has_learnt(manager: Manager, tmp_path: Path) -> None:
    model, base = amb.load_model("tiny/owner"), amb.load_model("tiny/other-data")
    other = amb.load_model("tiny/other-seed").backbone.state_dict()
    spec = "merge:how=task-arithmetic,other=tiny/other-seed,weight=0.2"
    result = merged(manager, spec, tmp_path, model, base).backbone.state_dict()
    for name, mine in model.backbone.state_dict().items():
        torch.testing.assert_close(result[name], mine + 0.2 * other[name] - 0.2 * base.backbone.state_dict()[name])


def test_the_fine_tuned_base_is_a_fine_tune_of_the_base(manager: Manager, tmp_path: Path) -> None:
    from amb.training.config import TrainingConfig
    from amb.training.loop import tune

    model, base = toy_model(1, n_classes=3), toy_model(2)
    spec = "merge:other=finetuned-base,weight=1,epochs=1,n_images=16,lr=1e-3"
    result = merged(manager, spec, tmp_path, model, base).backbone.state_dict()
    ctx = toy_context(tmp_path, roles=("attacker",))
    tuned = tune(
        base, ctx.split("attacker"), "classification", TrainingConfig("cosine", lr=1e-3, epochs=1, n_images=16), ctx
    )
    torch.testing.assert_close(result, tuned.backbone.state_dict(), rtol=0, atol=0)
    assert not torch.equal(result["layers.0.linear1.weight"], base.backbone.layers[0].linear1.weight)


def test_merging_with_the_same_weights_is_noted(manager: Manager, tmp_path: Path) -> None:
    (attack,) = manager.registry.attack_chain("merge-base50")
    model = toy_model(1)
    ctx = toy_context(tmp_path, base=model.copy)
    torch.testing.assert_close(attack.apply(model, ctx).state_dict(), model.state_dict())
    assert ctx.notes
    ctx = toy_context(tmp_path, base=lambda: toy_model(2))
    attack.apply(model, ctx)
    assert not ctx.notes


def test_batch_norms_merge_with_their_statistics(manager: Manager, tmp_path: Path) -> None:
    model, base = amb.load_model("tiny/convnet"), amb.load_model("tiny/convnet-other-data")
    result = merged(manager, "merge:weight=1", tmp_path, model, base)
    images = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(result.features(images), base.features(images))
        assert not torch.allclose(result.features(images), model.features(images))


def test_what_cannot_be_merged_is_refused(manager: Manager, tmp_path: Path) -> None:
    with pytest.raises(amb.BadParamsError, match=r"another architecture: .* is \(1, 1, 32\) against None|another arch"):
        merged(manager, "merge-base50", tmp_path, toy_model(1), toy_model(1, depth=3))
    with pytest.raises(amb.BadParamsError, match="tiny/convnet cannot be merged with toy/1"):
        merged(manager, "merge:other=tiny/convnet", tmp_path, toy_model(1), toy_model(1))
    with pytest.raises(amb.BadParamsError, match="task vector"):
        manager.registry.attack_chain("merge:how=task-arithmetic")
    with pytest.raises(amb.MissingError, match="public model"):
        (attack,) = manager.registry.attack_chain("merge-base50")
        attack.apply(toy_model(1), toy_context(tmp_path))


# Noise


def noise_of(manager: Manager, spec: str, model: VisionModel, folder: Path) -> list[torch.Tensor]:
    """The noise in each matrix, in units of the matrix's standard deviation."""
    (attack,) = manager.registry.attack_chain(spec)
    noisy = attack.apply(model, toy_context(folder, roles=("attacker",)))
    changed = []
    for (name, before), after in zip(model.named_parameters(), noisy.parameters(), strict=True):
        if torch.equal(before, after):
            assert before.ndim == 1 or "heads" in name or "pos_embed" in name or "cls_token" in name, name
        else:
            changed.append(((after - before) / before.std()).detach().flatten())
    return changed


def test_noise_is_gaussian_in_proportion_to_each_matrix(manager: Manager, tmp_path: Path) -> None:
    found = noise_of(manager, "noise20", amb.load_model("tiny/owner"), tmp_path)
    assert len(found) == 1 + 6 * 4  # patches; query-key-value, projection and two layers of the MLP in each block
    for noise in found:
        assert noise.std().item() == pytest.approx(0.2, rel=0.05)
    assert kstest(found[1].numpy() / 0.2, "norm").pvalue > 1e-3


def test_another_draw_is_other_noise(manager: Manager, tmp_path: Path) -> None:
    model = amb.load_model("tiny/owner")
    one, again, other = (
        noise_of(manager, f"noise:sigma=0.1,draw={draw}", model, tmp_path)[1].double() for draw in (3, 3, 4)
    )
    assert torch.equal(one, again)
    assert abs(torch.corrcoef(torch.stack([one, other]))[0, 1]) < 0.05
