"""The regression of embeddings on content: it finds a mark of that form, and the model is trained to what is left."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from amb.testing import toy_context, toy_model
from amb_attacks.regress import AdaptiveRegress
from amb_attacks.regress_torch import explain, whiten


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def fit(z: torch.Tensor, answers: torch.Tensor, **params: Any) -> torch.Tensor:
    generator = torch.Generator().manual_seed(5)
    return explain(AdaptiveRegress(ridge=1e-4, n_components=z.shape[1], **params), z, answers, generator).double()


def test_components_are_white() -> None:
    z = whiten(drawn(200, 6) @ drawn(6, 6, seed=1), 4)
    torch.testing.assert_close(z.T @ z / 199, torch.eye(4, dtype=torch.float64))
    torch.testing.assert_close(z.mean(dim=0), torch.zeros(4, dtype=torch.float64))


@pytest.mark.parametrize("functions", ["sinusoids", "products"])
def test_a_mark_of_the_methods_form_is_found_and_noise_is_not(functions: str) -> None:
    z = whiten(drawn(2000, 6), 4)
    direction = torch.nn.functional.normalize(drawn(5, 4, seed=2), dim=1)
    mark = torch.sin(z @ direction.T) @ drawn(5, 7, seed=3)
    mark = mark - mark.mean(dim=0)
    noise = drawn(2000, 7, seed=4)
    found = fit(z, mark + noise, functions=functions, n_functions=64)
    assert ((found - mark).square().sum() / mark.square().sum()).item() < 0.1
    alone = fit(z, noise, functions=functions, n_functions=64)
    assert (alone.square().sum() / noise.square().sum()).item() < 0.05


def test_what_is_linear_in_the_content_can_stay() -> None:
    z = whiten(drawn(2000, 6), 4)
    line, curve = z @ drawn(4, 3, seed=2), (z[:, :1] * z[:, 1:2]) @ drawn(1, 3, seed=3)
    kept = fit(z, line + curve, keep="linear", functions="products")
    torch.testing.assert_close(kept, curve - curve.mean(dim=0), atol=0.15, rtol=0.1)
    assert (fit(z, line, keep="linear").norm() / line.norm()).item() < 0.02


@torch.no_grad()
def test_the_model_is_trained_to_what_is_left(tmp_path: Path) -> None:
    model, ctx = toy_model(n_classes=3), toy_context(tmp_path, roles=("attacker",))
    attack = AdaptiveRegress(steps=150, batch=32, n_images=128, n_functions=32, n_components=4)
    with torch.enable_grad():
        changed = attack.apply(model, ctx)
    assert 0.05 < ctx.notes["subtracted"] < 1
    images = ctx.split("attacker").batch(range(128)).images
    z = whiten(model.prefix(images, 0)[:, 1:].mean(dim=1), 4)
    left, before = (explain(attack, z, each.features(images), ctx.generator("functions")) for each in (changed, model))
    assert left.var(dim=0).sum() < 0.5 * before.var(dim=0).sum()
    assert torch.equal(changed.prefix(images, 0), model.prefix(images, 0)), "the first blocks stay"
